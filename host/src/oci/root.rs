//! A root image from a merged tree: with the agent and every place that it mounts
//! on, as the built-in environments have them.

use super::layer::{Layer, Members, UNPACKED_MAX};
use super::merge::{Body, Content, Merged, Misfit};
use crate::error::{Error, ErrorKind, Result};
use crate::seed::archive::tar::MemberKind;
use crate::seed::entry::{BadPath, Bytes, Content as Bytewise, Entry, Kind};
use crate::seed::erofs::Writer;
use crate::seed::tree::Stored;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Where the kernel finds the agent.
const AGENT: &[u8] = b"usr/lib/pyro/pyro-agent";

/// The directory that is the agent's: whatever an image had there goes.
const AGENTS: &[u8] = b"usr/lib/pyro";

/// What the image was made from, for whoever wonders in a guest. It also tells
/// images apart that differ in their configuration only.
const CONFIG: &[u8] = b"usr/lib/pyro/image.json";

/// What the agent mounts on, with modes. The base is read-only.
const MOUNT_POINTS: [(&[u8], u32); 7] = [
    (b"proc", 0o555),
    (b"sys", 0o555),
    (b"dev", 0o755),
    (b"run", 0o755),
    (b"tmp", 0o1777),
    (b"mnt", 0o755),
    (b"workspace", 0o755),
];

/// What the agent writes into when a workspace is activated.
const ETC: &[u8] = b"etc";

/// Files that the agent fills in. Whatever an image has there was its builder's.
const OWN_FILES: [(&[u8], &[u8]); 4] = [
    (b"etc/hostname", b"pyro\n"),
    (b"etc/resolv.conf", b"# pyro-agent names a server here when the network policy has egress.\n"),
    (b"etc/hosts", b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    (b"etc/machine-id", b""),
];

/// What is put into an image besides its layers.
#[derive(Debug)]
pub struct Baked<'a> {
    /// The static agent.
    pub agent: &'a Path,
    /// The configuration, as it is kept in the image.
    pub config: &'a [u8],
    /// The directory that programs start in, which is made if need be.
    pub working_dir: &'a str,
}

/// A root image on its way.
pub struct Root {
    writer: Writer,
}

impl Root {
    /// Begins an image, as a new file.
    ///
    /// # Errors
    /// When it is there already, or cannot be written.
    pub fn new(target: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(target);
        let file =
            file.map_err(|error| Error::io(format!("cannot write {}", target.display()), error))?;
        Ok(Self { writer: Writer::of(file, "root image")? })
    }

    /// Stores the content of a file that no layer has.
    ///
    /// # Errors
    /// When it cannot be read, or the image not be written.
    pub fn store(&mut self, size: u64, content: &mut dyn Bytewise) -> Result<Stored> {
        self.writer.store(size, content)
    }

    /// Puts into a tree what every guest needs.
    ///
    /// # Errors
    /// When the agent cannot be read, or the tree leads nowhere.
    pub fn bake(&mut self, merged: &mut Merged, baked: &Baked<'_>) -> Result<()> {
        let odd = |misfit: Misfit| {
            let message = "the image leaves no room for the agent";
            Error::new(ErrorKind::Untrusted, message).because(misfit)
        };
        merged.begin_layer();
        // The device nodes of an image are nobody's.
        merged.put(b"dev", 0o755, Body::Directory(BTreeMap::new())).map_err(odd)?;
        for (path, mode) in MOUNT_POINTS {
            merged.make_directory(path, mode).map_err(odd)?;
        }
        merged.make_directory(ETC, 0o755).map_err(odd)?;
        for (path, content) in OWN_FILES {
            self.put(merged, path, 0o644, content)?;
        }
        merged.lead_to(baked.working_dir.as_bytes()).map_err(|misfit| {
            let message = format!("the image's directory {:?} cannot be made", baked.working_dir);
            Error::new(ErrorKind::Untrusted, message).because(misfit)
        })?;
        merged.put(AGENTS, 0o755, Body::Directory(BTreeMap::new())).map_err(odd)?;
        self.put(merged, CONFIG, 0o444, baked.config)?;
        let unreadable = |error| Error::io("cannot read the agent", error);
        let agent = File::open(baked.agent).map_err(unreadable)?;
        let size = agent.metadata().map_err(unreadable)?.len();
        let content = Content::Stored(self.store(size, &mut Plain(agent))?);
        merged.put(AGENT, 0o755, Body::File { size, content }).map_err(odd)
    }

    fn put(&mut self, merged: &mut Merged, path: &[u8], mode: u32, content: &[u8]) -> Result<()> {
        let size = content.len() as u64;
        let content = Content::Stored(self.store(size, &mut Bytes(content))?);
        merged.put(path, mode, Body::File { size, content }).map_err(|misfit| {
            Error::new(ErrorKind::Untrusted, "the image leaves no room for the agent")
                .because(misfit)
        })
    }

    /// Stores the content of a layer's members that are still in the tree.
    ///
    /// # Errors
    /// As [`Layer::each`], and when the layer is not what it was.
    pub fn fill(
        &mut self,
        merged: &mut Merged,
        number: u32,
        layer: &Layer,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let changed = || {
            let message = format!("{} changed while it was read", layer.name);
            Error::new(ErrorKind::Io, message).hint("try again")
        };
        let mut wanted = merged.wanted(number);
        layer.each(UNPACKED_MAX, cancel, |ordinal, member, members: &mut Members<'_>| {
            let Some(node) = wanted.remove(&ordinal) else { return Ok(()) };
            let Body::File { size, content } = &mut merged.node_mut(node).body else {
                return Err(changed());
            };
            if member.kind != MemberKind::File(*size) {
                return Err(changed());
            }
            *content = Content::Stored(self.writer.store(*size, members)?);
            Ok(())
        })?;
        if wanted.is_empty() { Ok(()) } else { Err(changed()) }
    }

    /// Writes the tree. All content is stored.
    ///
    /// # Errors
    /// When a path is too long, or the image cannot be written.
    pub fn finish(mut self, merged: &Merged) -> Result<()> {
        let root = merged.node(Merged::ROOT);
        let tree = self.writer.tree();
        tree.set_root(root.mode, root.mtime);
        tree.set_attributes(crate::seed::tree::Tree::ROOT, root.attributes.clone());
        merged
            .visit(|visit| {
                let node = visit.node;
                let (kind, stored) = match (&node.body, visit.first) {
                    (_, Some(first)) => (Kind::HardLink(first), None),
                    (Body::Directory(_), None) => (Kind::Directory, None),
                    (Body::Symlink(target), None) => (Kind::Symlink(target.to_vec()), None),
                    (Body::File { size, content: Content::Stored(stored) }, None) => {
                        (Kind::File { size: *size }, Some(stored.clone()))
                    }
                    (Body::File { content: Content::Member { .. }, .. }, None) => {
                        let message = format!("`{}` has no content", visit.path);
                        return Err(Unwritten(Error::new(ErrorKind::Internal, message)));
                    }
                };
                let entry = Entry { path: visit.path, mode: node.mode, mtime: node.mtime, kind };
                let is_link = matches!(entry.kind, Kind::HardLink(_));
                let id = tree.insert(&entry, stored)?;
                if !is_link {
                    tree.set_attributes(id, node.attributes.clone());
                }
                Ok(())
            })
            .map_err(|Unwritten(error)| error)?;
        self.writer.finish_root().map(drop)
    }
}

/// Why a tree could not be written.
struct Unwritten(Error);

impl From<Error> for Unwritten {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<BadPath> for Unwritten {
    fn from(bad: BadPath) -> Self {
        let message = "a path of the image is none that Linux takes";
        Self(Error::new(ErrorKind::Untrusted, message).because(bad))
    }
}

/// The content of a file of pyro's own.
struct Plain(File);

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Bytewise for Plain {
    fn skip_zeros(&mut self, _: u64) {}
}
