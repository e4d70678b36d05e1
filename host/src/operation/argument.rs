//! Arguments that operations share. Each type defines once what it accepts:
//! for the command line, for JSON and in the schema.

mod command_line;
mod number;
mod path;
mod variable;

pub use command_line::CommandLine;
pub use number::{MemMib, Number, OutOfBounds, OutputLimit, TimeoutSeconds, VcpuCount};
pub use path::PathInGuest;
pub use variable::{Variable, Variables};
