//! What has changed in a workspace, against its seed.

mod alias;
mod compare;
pub(crate) mod layers;
mod names;
#[cfg(test)]
mod tests;
pub(crate) mod walk;
mod xattr;
