//! Aho and Corasick's automaton: which of many texts end at a byte, in one step
//! for each byte.

use std::fmt;

/// A state: what of a text has been seen.
pub(super) type State = u32;

/// Nothing has.
pub(super) const ROOT: State = 0;

/// No state.
const NONE: u32 = u32::MAX;

/// All texts that are looked for.
pub(super) struct Automaton {
    nodes: Vec<Node>,
    /// The root's children, of which there are many; others have few.
    first: [State; 256],
    longest: usize,
}

struct Node {
    byte: u8,
    /// The first of those that go on from here.
    child: State,
    /// The next that goes on from where this one does.
    sibling: State,
    /// What of a text has been seen when the next byte does not go on from here.
    fallback: State,
    /// How many bytes have been seen.
    depth: u16,
    /// How long the longest text is that ends here; 0 if none does.
    found: u16,
    /// How many of the bytes seen may belong to a text whose end is to come.
    pending: u16,
}

impl Automaton {
    /// For texts of at most 65535 bytes each.
    pub(super) fn of<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let root = Node {
            byte: 0,
            child: NONE,
            sibling: NONE,
            fallback: ROOT,
            depth: 0,
            found: 0,
            pending: 0,
        };
        let mut automaton = Self { nodes: vec![root], first: [NONE; 256], longest: 0 };
        for text in texts {
            automaton.add(text);
        }
        automaton.connect();
        automaton
    }

    fn add(&mut self, text: &[u8]) {
        let mut state = ROOT;
        for (seen, byte) in (1..=u16::MAX).zip(text) {
            state = match self.child(state, *byte) {
                NONE => self.grow(state, *byte, seen),
                child => child,
            };
        }
        let node = &mut self.nodes[state as usize];
        node.found = node.depth;
        self.longest = self.longest.max(node.depth.into());
    }

    fn grow(&mut self, parent: State, byte: u8, depth: u16) -> State {
        let made = State::try_from(self.nodes.len()).unwrap_or(NONE);
        let sibling = std::mem::replace(&mut self.nodes[parent as usize].child, made);
        let node = Node { byte, child: NONE, sibling, fallback: ROOT, depth, found: 0, pending: 0 };
        self.nodes.push(node);
        if parent == ROOT {
            self.first[usize::from(byte)] = made;
        }
        made
    }

    /// Breadth first, so that what a state falls back to is complete.
    fn connect(&mut self) {
        let mut queue = std::collections::VecDeque::from([ROOT]);
        while let Some(state) = queue.pop_front() {
            let Node { fallback, depth, found, child: first, .. } = self.nodes[state as usize];
            let (found, pending) = (
                found.max(self.found(fallback)),
                match first {
                    NONE => self.nodes[fallback as usize].pending,
                    _ => depth,
                },
            );
            let node = &mut self.nodes[state as usize];
            (node.found, node.pending) = (found, pending);
            let mut child = first;
            while child != NONE {
                let Node { byte, sibling, .. } = self.nodes[child as usize];
                if state != ROOT {
                    self.nodes[child as usize].fallback = self.step(fallback, byte);
                }
                queue.push_back(child);
                child = sibling;
            }
        }
    }

    fn child(&self, state: State, byte: u8) -> State {
        if state == ROOT {
            return self.first[usize::from(byte)];
        }
        let mut child = self.nodes[state as usize].child;
        while child != NONE && self.nodes[child as usize].byte != byte {
            child = self.nodes[child as usize].sibling;
        }
        child
    }

    /// The state after one more byte.
    pub(super) fn step(&self, mut state: State, byte: u8) -> State {
        loop {
            match self.child(state, byte) {
                NONE if state == ROOT => return ROOT,
                NONE => state = self.nodes[state as usize].fallback,
                child => return child,
            }
        }
    }

    /// How many of the bytes seen last may belong to a text whose end is to come.
    pub(super) fn pending(&self, state: State) -> usize {
        self.nodes[state as usize].pending.into()
    }

    /// How long the longest text is that ends here; 0 if none does.
    pub(super) fn found(&self, state: State) -> u16 {
        self.nodes[state as usize].found
    }

    /// Whether a text begins with this byte.
    pub(super) fn begins(&self, byte: u8) -> bool {
        self.first[usize::from(byte)] != NONE
    }

    /// How long the longest text is.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }
}

impl Drop for Automaton {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.nodes.iter_mut().for_each(|node| node.byte.zeroize());
    }
}

/// What it looks for is secret.
impl fmt::Debug for Automaton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Automaton").finish_non_exhaustive()
    }
}
