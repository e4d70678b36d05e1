//! The real agent over socket pairs, without a machine: what a host sees.

mod activation;
mod cancelling;
mod differing;
mod ending;
mod files;
mod finding;
mod host;
mod hostile;
mod identity;
mod input;
mod inspecting;
mod kept;
mod many;
mod off;
mod output;
mod pushing;
mod services;
mod shells;
mod starting;
mod tunnels;
