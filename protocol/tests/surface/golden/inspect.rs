//! Inspections, and what only they ask of an export.

use super::encoded;
use pyro_protocol::Call;
use pyro_protocol::export::{Attributes, ExportEntry, ExportKind, Xattr};
use pyro_protocol::file::FileTime;
use pyro_protocol::inspect::{
    CopyEnd, CopyProgress, CopyTree, CopyingTree, Inspect, Inspecting, MeasureTree, TreeMeasured,
};

#[test]
fn of_an_inspection() {
    let inspect = Inspect { entropy: "ab".into(), clock_offset_ns: -1, seeded: true };
    assert_eq!(encoded(&Call::Inspect(inspect)), "2c0261620101");
    assert_eq!(encoded(&Inspecting { took_us: 1 }), "01");
    assert_eq!(encoded(&Call::MeasureTree(MeasureTree)), "2d");
    assert_eq!(encoded(&TreeMeasured { entries: 1, bytes: 2, free_bytes: 3 }), "010203");
    assert_eq!(encoded(&Call::CopyTree(CopyTree)), "2e");
    assert_eq!(encoded(&CopyingTree), "");
    assert_eq!(encoded(&CopyProgress { entries: 1, bytes: 2 }), "0102");
    assert_eq!(encoded(&CopyEnd { entries: 1, bytes: 2, too_deep: 3 }), "010203");
}

#[test]
fn of_attributes() {
    let xattrs = vec![Xattr { name: "n".into(), value: "v".into() }];
    let entry = ExportEntry {
        path: "a".into(),
        mode: 1,
        modified: FileTime { seconds: 1, nanoseconds: 0 },
        kind: ExportKind::Directory,
        attributes: Some(Attributes { uid: 2, gid: 3, xattrs }),
    };
    assert_eq!(encoded(&entry), "01610102000101020301016e0176");
}
