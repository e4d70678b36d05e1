//! Exports.

use super::{byte_string, file_time, file_type, guest_path};
use proptest::prelude::*;
use proptest::{collection::vec, option};
use pyro_protocol::export::{
    Attributes, Export, ExportEnd, ExportEntry, ExportKind, Exporting, Xattr,
};

pub fn export() -> impl Strategy<Value = Export> {
    (guest_path(), any::<bool>()).prop_map(|(path, attributes)| Export { path, attributes })
}

pub fn exporting() -> impl Strategy<Value = Exporting> {
    file_type().prop_map(|file_type| Exporting { file_type })
}

pub fn export_entry() -> impl Strategy<Value = ExportEntry> {
    let kind = prop_oneof![
        any::<u64>().prop_map(|size_bytes| ExportKind::File { size_bytes }),
        Just(ExportKind::Directory),
        byte_string().prop_map(ExportKind::Symlink),
        byte_string().prop_map(ExportKind::HardLink),
    ];
    let xattr = (byte_string(), byte_string()).prop_map(|(name, value)| Xattr { name, value });
    let attributes = (any::<u32>(), any::<u32>(), vec(xattr, 0..3))
        .prop_map(|(uid, gid, xattrs)| Attributes { uid, gid, xattrs });
    (byte_string(), any::<u32>(), file_time(), kind, option::of(attributes)).prop_map(
        |(path, mode, modified, kind, attributes)| ExportEntry {
            path,
            mode,
            modified,
            kind,
            attributes,
        },
    )
}

pub fn export_end() -> impl Strategy<Value = ExportEnd> {
    (any::<[u64; 5]>(), vec(guest_path(), 0..4)).prop_map(
        |([entries, special, torn, too_deep, unattributed], examples)| ExportEnd {
            entries,
            special,
            torn,
            too_deep,
            unattributed,
            examples,
        },
    )
}
