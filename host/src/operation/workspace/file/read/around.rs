use super::super::View;
use crate::secret::redact::Told;
use crate::{Context, Result};
use pyro_protocol::GuestPath;
use pyro_protocol::file::{self, ReadRange};
use std::sync::{Mutex, PoisonError};

/// What is around a part of a file, as far as it says what in the part is secret.
pub(super) struct Around {
    /// What comes before.
    pub(super) before: Vec<u8>,
}

impl Around {
    pub(super) async fn of(
        view: View<'_>,
        context: &Context,
        path: &GuestPath,
        range: ReadRange,
    ) -> Result<Self> {
        let reach = view.redactor.reach();
        let start = match range {
            _ if reach == 0 => 0,
            ReadRange::From { offset } => offset,
            ReadRange::Lines { first: 0 | 1, .. } => 0,
            // Where the line begins.
            ReadRange::Lines { .. } => {
                let request = file::FileRead { path: path.clone(), range, max_bytes: Some(0) };
                let asking = view.agent.read_file(request, |_| std::future::ready(Ok(())));
                context.unless_cancelled(asking).await?.1.offset
            }
        };
        let from = start.saturating_sub(reach as u64);
        let before = read(view, context, path, (from, start)).await?;
        Ok(Self { before })
    }

    /// What comes after a part that ends before the file does.
    pub(super) async fn after(
        &self,
        view: View<'_>,
        context: &Context,
        path: &GuestPath,
        next: u64,
    ) -> Result<Vec<u8>> {
        let reach = view.redactor.reach() as u64;
        read(view, context, path, (next, next.saturating_add(reach))).await
    }

    /// What of the part may be told.
    pub(super) fn told(self, view: View<'_>, part: Vec<u8>, after: Vec<u8>, most: usize) -> Told {
        let from = self.before.len();
        let to = from + part.len().min(most);
        view.redactor.window(&[self.before, part, after].concat(), from..to, false)
    }
}

/// A few bytes of a file from one offset to another, as far as there are any.
async fn read(
    view: View<'_>,
    context: &Context,
    path: &GuestPath,
    (from, to): (u64, u64),
) -> Result<Vec<u8>> {
    if from == to {
        return Ok(Vec::new());
    }
    let max = to - from;
    let range = ReadRange::From { offset: from };
    let request = file::FileRead { path: path.clone(), range, max_bytes: Some(max) };
    let read = Mutex::new(Vec::new());
    let reading = view.agent.read_file(request, |bytes| {
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        let room = usize::try_from(max).unwrap_or(usize::MAX).saturating_sub(read.len());
        read.extend_from_slice(&bytes[..bytes.len().min(room)]);
        std::future::ready(Ok(()))
    });
    context.unless_cancelled(reading).await?;
    Ok(read.into_inner().unwrap_or_else(PoisonError::into_inner))
}
