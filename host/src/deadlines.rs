//! How long a guest may take for each thing that is waited for.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a guest may take for each thing that is waited for; then it counts
/// as lost. The defaults bear with a crowded host without KVM, where a guest
/// gets little time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// To come up where the processor runs it. One that takes longer never
    /// comes up.
    pub kvm_boot: Duration,
    /// And where it is translated; many may boot at once.
    pub tcg_boot: Duration,
    /// To mount the workspace's disks.
    pub activation: Duration,
    /// To accept a connection and to answer `Hello`.
    pub greeting: Duration,
    /// To answer a call that does not say otherwise.
    pub reply: Duration,
    /// To say or to take the next word while it works on a tree or a large file.
    pub silence: Duration,
    /// To end a program whose own time is over, and to say so.
    pub timeout_grace: Duration,
    /// To say why it ended, and to end once it is of no more use.
    pub last_words: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            kvm_boot: Duration::from_secs(15),
            tcg_boot: Duration::from_secs(120),
            activation: Duration::from_secs(30),
            greeting: Duration::from_secs(20),
            reply: Duration::from_secs(30),
            // Writing a gigabyte out to a busy host's disk takes minutes.
            silence: Duration::from_secs(600),
            timeout_grace: Duration::from_secs(20),
            last_words: Duration::from_secs(2),
        }
    }
}
