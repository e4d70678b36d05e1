use super::{BadName, SecretName, Secrets};
use crate::error::{Error, ErrorKind, Result};
use std::str::FromStr;

/// A secret that a program gets as a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVariable {
    /// Which.
    pub secret: SecretName,
    /// As which variable.
    pub variable: SecretName,
}

/// `NAME`, or `NAME=VARIABLE`.
impl FromStr for SecretVariable {
    type Err = BadName;

    fn from_str(word: &str) -> Result<Self, BadName> {
        let (secret, variable) = word.split_once('=').unwrap_or((word, word));
        Ok(Self { secret: secret.parse()?, variable: variable.parse()? })
    }
}

impl Secrets {
    /// Adds those wanted to variables.
    pub(crate) fn add_to(
        &self,
        env: &mut Vec<(Vec<u8>, Vec<u8>)>,
        wanted: &[SecretVariable],
    ) -> Result<()> {
        for SecretVariable { secret, variable } in wanted {
            let unfit = |why: String, hint: String| {
                Err(Error::new(ErrorKind::InvalidInput, why).hint(hint))
            };
            let Some(value) = self.get(secret) else {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("there is no secret {secret}"),
                ));
            };
            let Some(value) = value.as_variable() else {
                return unfit(
                    format!("secret {secret} has a NUL byte, which no variable can have"),
                    format!("read its file in the guest: {GUEST_PATH}/{secret}"),
                );
            };
            if env.iter().any(|(name, _)| name == variable.as_str().as_bytes()) {
                return unfit(
                    format!("variable {variable} is given twice"),
                    "give each variable one value".into(),
                );
            }
            env.push((variable.as_str().into(), value.to_vec()));
        }
        Ok(())
    }
}

/// Where secrets are in a guest.
pub(crate) const GUEST_PATH: &str = "/run/pyro-secrets";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretValue;

    fn added(wanted: &[&str]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut secrets = Secrets::default();
        for (name, value) in [("TOKEN", "hunter22\n"), ("BLOB", "a\0b")] {
            let value = SecretValue::new(value.into()).expect("a value");
            secrets.add(name.parse().expect("a name"), value).expect("room");
        }
        let wanted: Vec<_> = wanted.iter().map(|word| word.parse().expect("a word")).collect();
        let mut env = vec![(b"HOME".to_vec(), b"/".to_vec())];
        secrets.add_to(&mut env, &wanted).map(|()| env)
    }

    #[test]
    fn a_secret_becomes_a_variable_without_its_line_end() {
        let env = added(&["TOKEN=API_KEY", "TOKEN"]).expect("it is there");
        assert_eq!(env[1], (b"API_KEY".to_vec(), b"hunter22".to_vec()));
        assert_eq!(env[2], (b"TOKEN".to_vec(), b"hunter22".to_vec()));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (wanted, kind, named) in [
            (vec!["NONE"], ErrorKind::NotFound, "NONE"),
            (vec!["TOKEN=HOME"], ErrorKind::InvalidInput, "HOME"),
            (vec!["TOKEN", "TOKEN"], ErrorKind::InvalidInput, "TOKEN"),
            (vec!["BLOB"], ErrorKind::InvalidInput, "NUL"),
        ] {
            let error = added(&wanted).expect_err(named);
            assert_eq!(error.kind(), kind);
            assert!(error.message().contains(named), "{error}");
        }
        for bad in ["", "=A", "A=", "A=B=C", "a-b"] {
            assert!(bad.parse::<SecretVariable>().is_err(), "{bad}");
        }
    }
}
