//! Environments from files and directories of the host.

use super::adopt::{self, Adopted, Source};
use super::build::{BuildOptions, Task};
use super::manifest::{How, Origin};
use super::{Environment, Environments};
use crate::blocking::blocking;
use crate::context::Admitted;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Events;
use crate::oci::layout::{self, Found, Image, Scratch};
use crate::oci::merge::{Body, Content as Place, Merged};
use crate::oci::root::Root;
use crate::seed::archive::tar::{Member, MemberKind};
use crate::seed::directory::Top;
use crate::seed::tree::Stored;
use crate::seed::walk::Warnings;
use crate::seed::{Content, Entry, Kind, Mtime, Visitor, Walk};
use crate::store::private_dir;
use tokio_util::sync::CancellationToken;

/// An image on the host that is wanted.
#[derive(Debug, Clone)]
pub struct Import {
    /// Where it is.
    pub place: Admitted,
    /// What the environment is to be called; as the image calls itself if not said.
    pub name: Option<String>,
    /// Which of several images, by what it calls itself.
    pub image: Option<String>,
}

impl Environments {
    /// Makes an environment of an image, or a root file system, of the host.
    ///
    /// # Errors
    /// When there is none at the path, it is none for the guests, has no name,
    /// there is no room, or it is cancelled. Then everything is as before.
    pub async fn import(
        &self,
        import: Import,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Environment> {
        if let Some(asked) = &import.name {
            adopt::name(self, asked)?;
        }
        let mut task = Task::new(self, BuildOptions::default(), events, cancel)?;
        let source = import.place.path().display().to_string();
        task.stage("reading", &source).await;
        let scratch = task.staging.path().join("parts");
        private_dir(&scratch)?;
        let (place, wanted, stop) = (import.place, import.image, cancel.clone());
        let room = (self.free_bytes)(&self.config.cache_dir)?;
        let found = blocking(move || {
            layout::find(&place, wanted.as_deref(), Scratch { dir: &scratch, room }, &stop)
        });
        let found = found.await?;
        let (image, content) = match found {
            Found::Tree(place) => (None, tree(place)),
            Found::Image(image) => {
                let Image { name, digest, config, config_text, layers } = *image;
                (Some((name, digest, config, config_text)), Source::Layers(layers))
            }
        };
        let (own_name, digest, config, config_text) =
            image.unwrap_or_else(|| (None, None, Default::default(), b"{}\n".to_vec()));
        let asked = import.name.or(own_name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("{source} does not say what it is called"))
                .hint("give it a name with `--name`")
        })?;
        let name = adopt::name(self, &asked)?;
        let _lock = task.lock_environment(&name).await?;
        let agent = task.agent().await?;
        let origin = Origin { how: How::Imported, source, digest };
        let adopted =
            Adopted { name: name.clone(), origin, config, config_text, blobs: Vec::new() };
        adopted.settle(&task, &agent, content).await?;
        task.ensure_kernel().await?;
        self.inspect(name.as_str())
    }
}

/// A directory as it is. Everything in it becomes root's: whose it is on the host
/// says nothing about the guest.
fn tree(place: Admitted) -> Source {
    Source::Tree(Box::new(move |root: &mut Root, cancel: &CancellationToken| {
        let mut top = Top::open(&place, None)?;
        let (mode, mtime) = top.stat()?;
        let mut merged = Merged::new();
        merged.begin_layer();
        let mut taking = Taking { root, merged, stored: Vec::new() };
        let mut walk = Walk::new(&mut taking, cancel);
        walk.root(mode, mtime)?;
        top.walk(&mut walk)?;
        let (_, warnings) = walk.finish();
        taking.finish(warnings)
    }))
}

/// Puts what is shown into an image and a tree.
struct Taking<'a> {
    root: &'a mut Root,
    merged: Merged,
    /// The content of files in the order in which they were shown.
    stored: Vec<Stored>,
}

impl Taking<'_> {
    fn finish(mut self, warnings: Warnings) -> Result<(Merged, Warnings)> {
        for (ordinal, node) in self.merged.wanted(1) {
            let stored = usize::try_from(ordinal).ok().and_then(|at| self.stored.get(at)).cloned();
            if let Body::File { content, .. } = &mut self.merged.node_mut(node).body
                && let Some(stored) = stored
            {
                *content = Place::Stored(stored);
            }
        }
        Ok((self.merged, warnings))
    }

    fn take(&mut self, name: &[u8], mode: u32, mtime: Mtime, kind: MemberKind) -> Result<()> {
        let (owner, xattrs) = ((0, 0), Vec::new());
        let member = Member { name: name.to_vec(), mode, mtime, owner, xattrs, kind };
        let ordinal = self.stored.len().saturating_sub(1) as u64;
        self.merged.apply(&member, ordinal).map(drop).map_err(|misfit| {
            let name = crate::seed::entry::readable(name);
            Error::new(ErrorKind::InvalidInput, format!("`{name}` cannot be in an image"))
                .because(misfit)
        })
    }
}

impl Visitor for Taking<'_> {
    fn root(&mut self, mode: u32, mtime: Mtime) -> Result<()> {
        self.take(b".", mode, mtime, MemberKind::Directory)
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        let kind = match &entry.kind {
            Kind::Directory => MemberKind::Directory,
            Kind::Symlink(target) => MemberKind::Symlink(target.clone()),
            Kind::HardLink(target) => MemberKind::HardLink(target.as_bytes().to_vec()),
            Kind::File { size } => {
                self.stored.push(self.root.store(*size, content)?);
                MemberKind::File(*size)
            }
        };
        self.take(entry.path.as_bytes(), entry.mode, entry.mtime, kind)
    }
}
