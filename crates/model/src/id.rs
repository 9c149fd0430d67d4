//! Ids of writers, jobs, items and profiles.

use std::fmt;
use std::str::FromStr;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            /// Parses the form of `Display`: 32 hexadecimal digits.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(text, 16).map(Self)
            }
        }
    };
}

random_id! {
    /// One opening of one log by one ingester; 128 random bits, never reused.
    WriterId
}
random_id! {
    /// One unit of compaction; 128 random bits, never reused.
    JobId
}
random_id! {
    /// The identity of a pushed document: a hash over tenant, labels, parameters and body. Equal keys count once.
    ItemKey
}

/// A profile as clients name it: 64 bits of its [`ItemKey`], shown as a UUID.
///
/// All series that were split from one pushed document share it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProfileId(pub u64);

impl ProfileId {
    /// The id of the profile that was pushed under `key`.
    pub fn of(key: ItemKey) -> Self {
        Self(key.0 as u64)
    }
}

impl fmt::Display for ProfileId {
    /// A UUID of version 8: the 64 bits, then the same bits mixed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let high = self.0;
        let low = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        write!(
            f,
            "{:08x}-{:04x}-8{:03x}-a{:03x}-{:08x}{:04x}",
            high >> 32,
            (high >> 16) & 0xffff,
            (high >> 4) & 0xfff,
            low & 0xfff,
            (low >> 12) & 0xffff_ffff,
            ((high & 0xf) << 12) | ((low >> 44) & 0xfff),
        )
    }
}

impl FromStr for ProfileId {
    type Err = String;

    /// Accepts exactly the UUIDs that `Display` writes, in either case.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("profile id {text:?} is not a UUID of this server");
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        if text.len() != 36 || hex.len() != 32 {
            return Err(wrong());
        }
        let bits = u128::from_str_radix(&hex, 16).map_err(|_| wrong())?;
        let first = (bits >> 96) as u64;
        let second = (bits >> 80) as u64 & 0xffff;
        let third = (bits >> 64) as u64 & 0xfff;
        let fourth = (bits >> 12) as u64 & 0xf;
        Ok(Self((first << 32) | (second << 16) | (third << 4) | fourth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_id_survives_its_uuid_form() {
        for bits in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let id = ProfileId(bits);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn profile_id_refuses_other_text() {
        assert!("not-a-uuid".parse::<ProfileId>().is_err());
    }
}
