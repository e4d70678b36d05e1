//! Any value of each type of the network's call.

use proptest::prelude::*;
use pyro_protocol::egress::OpenGateway;

pub fn open_gateway() -> impl Strategy<Value = OpenGateway> {
    let v4 = || any::<[u8; 4]>().prop_map(Into::into);
    let v6 = || any::<[u8; 16]>().prop_map(Into::into);
    (v4(), v6(), v4(), v6(), any::<u16>(), any::<Option<[u8; 6]>>()).prop_map(
        |(guest_v4, guest_v6, gateway_v4, gateway_v6, mtu, nic)| OpenGateway {
            guest_v4,
            guest_v6,
            gateway_v4,
            gateway_v6,
            mtu,
            nic,
        },
    )
}
