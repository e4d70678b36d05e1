//! schema/1.json is the frozen surface of generation 1, so that a change of it
//! is seen in a review. `PYRO_BLESS=1 cargo nextest run -p pyro-protocol` writes
//! it anew.

use pyro_protocol::call::TABLE;
use pyro_protocol::export::{ExportEnd, ExportEntry};
use pyro_protocol::file::FileReadEnd;
use pyro_protocol::handshake::Announcement;
use pyro_protocol::inspect::{CopyEnd, CopyProgress};
use pyro_protocol::kept::Skipped;
use pyro_protocol::process::{Exit, STDIN_WINDOW, Signal, StdinTaken};
use pyro_protocol::push::{PushChange, PushContent, PushEnd, PushEntry};
use pyro_protocol::shell::TerminalSize;
use pyro_protocol::{
    ANNOUNCE_PORT, AgentError, CALL_PORT, Call, ECHO_PORT, FrameKind, GENERATION, Hello, SINK_PORT,
    SOURCE_PORT, Welcome,
};
use schemars::schema_for;
use serde_json::{Value, json};
use std::path::Path;

/// What a frame of this kind carries; `null` is bytes as they are.
fn payload(kind: FrameKind) -> Value {
    match kind {
        FrameKind::Hello => json!(schema_for!(Hello)),
        FrameKind::Welcome => json!(schema_for!(Welcome)),
        FrameKind::Call => json!(schema_for!(Call)),
        FrameKind::Reply => json!("the call's reply"),
        FrameKind::Error => json!(schema_for!(AgentError)),
        FrameKind::Announcement => json!(schema_for!(Announcement)),
        FrameKind::Exit => json!(schema_for!(Exit)),
        FrameKind::Signal => json!(schema_for!(Signal)),
        FrameKind::StdinTaken => json!(schema_for!(StdinTaken)),
        FrameKind::Skipped => json!(schema_for!(Skipped)),
        FrameKind::Resize => json!(schema_for!(TerminalSize)),
        FrameKind::DataEnd => json!("what the call says"),
        FrameKind::Stdin
        | FrameKind::StdinEnd
        | FrameKind::Stdout
        | FrameKind::Stderr
        | FrameKind::Data => Value::Null,
    }
}

fn surface() -> Value {
    let frame = |kind: &FrameKind| {
        json!({
            "name": kind.name(),
            "byte": *kind as u8,
            "limit": kind.limit(),
            "payload": payload(*kind),
        })
    };
    let calls = TABLE.iter().map(|(call, reply, since, schemas)| {
        let (request, answer) = schemas();
        json!({ "call": call, "since": since, "request": request, "reply": reply, "answer": answer })
    });
    let pieces = [
        ("ExportEntry", schema_for!(ExportEntry)),
        ("CopyProgress", schema_for!(CopyProgress)),
        ("PushEntry", schema_for!(PushEntry)),
        ("PushContent", schema_for!(PushContent)),
        ("PushChange", schema_for!(PushChange)),
    ];
    let pieces = pieces.map(|(name, schema)| json!({ "name": name, "entry": schema }));
    let ends = [
        ("FileRead", schema_for!(FileReadEnd)),
        ("Export", schema_for!(ExportEnd)),
        ("Push", schema_for!(PushEnd)),
        ("CopyTree", schema_for!(CopyEnd)),
    ];
    let ends = ends.map(|(call, schema)| json!({ "call": call, "end": schema }));
    json!({
        "generation": GENERATION.0,
        "vsock_ports": {
            "call": CALL_PORT.0,
            "announce": ANNOUNCE_PORT.0,
            "echo": ECHO_PORT.0,
            "source": SOURCE_PORT.0,
            "sink": SINK_PORT.0,
        },
        "stdin_window": STDIN_WINDOW,
        "frames": FrameKind::ALL.iter().map(frame).collect::<Vec<_>>(),
        "pieces": pieces,
        "ends": ends,
        "calls": calls.collect::<Vec<_>>(),
    })
}

/// The types without what is said about them: words may be put better.
fn without_descriptions(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("description");
            members.values_mut().for_each(without_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(without_descriptions),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_surface_is_the_frozen_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{}.json", GENERATION.0));
    let mut now = surface();
    without_descriptions(&mut now);
    let now = serde_json::to_string_pretty(&now).expect("it is JSON") + "\n";
    if std::env::var_os("PYRO_BLESS").is_some() {
        std::fs::write(&path, &now).expect("the schema can be written");
    }
    let frozen = std::fs::read_to_string(&path).expect("the frozen schema");
    assert!(now == frozen, "the surface has changed; see the diff after PYRO_BLESS=1");
}

#[test]
fn no_call_is_younger_than_the_generation() {
    for (call, _, since, _) in TABLE {
        assert!((1..=GENERATION.0).contains(since), "{call}");
    }
}
