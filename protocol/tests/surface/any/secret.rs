use super::byte_string;
use proptest::collection::vec;
use proptest::prelude::*;
use pyro_protocol::secret::{Secret, SetSecrets};

pub fn set_secrets() -> impl Strategy<Value = SetSecrets> {
    let secret = ("\\PC{0,9}", byte_string()).prop_map(|(name, value)| Secret { name, value });
    vec(secret, 0..4).prop_map(|secrets| SetSecrets { secrets })
}
