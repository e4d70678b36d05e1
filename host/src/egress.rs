//! What a guest's packets may reach, and the gateway that takes them there.
//!
//! A guest has no NIC. With a network policy its agent makes a TUN device and
//! sends IP packets over one connection of the channel; [`gateway`] ends their
//! TCP and UDP in this process, asks the [`policy`], and opens ordinary sockets
//! of the user's. Nothing is connected before the policy has allowed it.

pub mod gateway;
pub mod policy;
