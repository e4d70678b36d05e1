//! Images as the Open Container Initiative (OCI) describes them, and Docker before
//! it: what they are called, what their documents say, where they come from, and
//! the root file system that their layers make together.
//!
//! Layers are never unpacked on the host. Their headers are merged into a
//! [`Merged`] tree in memory first; then the content of what is left of it goes
//! from the layers into an EROFS image. No name of a layer ever is a path of the
//! host.

pub mod document;
pub mod layer;
pub mod layout;
pub mod merge;
pub mod reference;
pub mod registry;
pub mod root;

pub use document::ImageConfig;
pub use layer::Layer;
pub use merge::Merged;
pub use reference::Reference;
