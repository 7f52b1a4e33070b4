//! Saved states as bytes: the name of what was saved, then its fields.

use anyhow::{Context, Result, ensure};
use serde::{Serialize, de::DeserializeOwned};

/// The bytes of `state`, marked with the `name` of the environment or wrapper.
pub fn save<T: Serialize>(name: &str, state: &T) -> Option<Vec<u8>> {
    postcard::to_allocvec(&(name, state)).ok()
}

/// The inverse of [`save`]; bytes of another environment or damaged ones are an error.
pub fn load<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    let damaged = || format!("the saved state of '{name}' is damaged ({} bytes)", bytes.len());
    let (found, rest): (&str, _) = postcard::take_from_bytes(bytes).with_context(damaged)?;
    ensure!(found == name, "the saved state belongs to '{found}', not to '{name}'; resume with the same task");
    let (state, rest) = postcard::take_from_bytes(rest).with_context(damaged)?;
    ensure!(rest.is_empty(), "{}: {} bytes follow its end", damaged(), rest.len());
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_and_refuse_what_does_not_fit() {
        let bytes = save("catch", &(1u8, -2.5f64)).unwrap();
        assert_eq!(load::<(u8, f64)>("catch", &bytes).unwrap(), (1, -2.5));
        assert!(load::<(u8, f64)>("pinpad", &bytes).unwrap_err().to_string().contains("'catch', not to 'pinpad'"));
        assert!(load::<(u8, f64)>("catch", &bytes[..bytes.len() - 1]).is_err());
        assert!(load::<u8>("catch", &bytes).unwrap_err().to_string().contains("8 bytes follow its end"));
    }
}
