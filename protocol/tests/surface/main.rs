//! The surface: what goes over the wire, byte for byte and as a schema.

mod any;
mod decoders;
mod golden;
mod pieces;
mod roundtrip;
mod schema;
mod transfer;
mod weight;
