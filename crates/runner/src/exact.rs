//! Floats in JSON that come back bit for bit, infinities and NaN included.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A float that is written as the hexadecimal digits of its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exact(pub f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format!("{:016x}", self.0.to_bits()))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(input)?;
        let bits = u64::from_str_radix(&digits, 16).map_err(serde::de::Error::custom)?;
        Ok(Exact(f64::from_bits(bits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_comes_back_bit_for_bit() {
        for x in [0.1, -0.0, 1e-310, f64::MAX, f64::INFINITY, f64::NAN] {
            let text = serde_json::to_string(&Exact(x)).unwrap();
            let back: Exact = serde_json::from_str(&text).unwrap();
            assert_eq!(back.0.to_bits(), x.to_bits());
        }
        assert!(serde_json::from_str::<Exact>("\"no digits\"").is_err());
    }
}
