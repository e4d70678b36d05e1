//! Inspections.

use super::byte_string;
use proptest::prelude::*;
use pyro_protocol::Call;
use pyro_protocol::inspect::{CopyEnd, CopyProgress, CopyTree, Inspect, MeasureTree, TreeMeasured};

pub fn inspect_call() -> impl Strategy<Value = Call> {
    let inspect = (byte_string(), any::<i64>(), any::<bool>()).prop_map(
        |(entropy, clock_offset_ns, seeded)| {
            Call::Inspect(Inspect { entropy, clock_offset_ns, seeded })
        },
    );
    prop_oneof![inspect, Just(Call::MeasureTree(MeasureTree)), Just(Call::CopyTree(CopyTree))]
}

pub fn tree_measured() -> impl Strategy<Value = TreeMeasured> {
    any::<[u64; 3]>().prop_map(|[entries, bytes, free_bytes]| TreeMeasured {
        entries,
        bytes,
        free_bytes,
    })
}

pub fn copy_progress() -> impl Strategy<Value = CopyProgress> {
    any::<[u64; 2]>().prop_map(|[entries, bytes]| CopyProgress { entries, bytes })
}

pub fn copy_end() -> impl Strategy<Value = CopyEnd> {
    any::<[u64; 3]>().prop_map(|[entries, bytes, too_deep]| CopyEnd { entries, bytes, too_deep })
}
