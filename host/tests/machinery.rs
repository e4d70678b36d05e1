//! The machinery by itself: the endpoint, and the confinement of real programs.

#[path = "machinery/confinement.rs"]
mod confinement;
#[path = "machinery/endpoint.rs"]
mod endpoint;
