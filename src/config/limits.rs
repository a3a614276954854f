//! GUARD_LIMIT_*: resource limits of the app (`setrlimit(2)`).

use super::settings::Config;
use super::size;
use crate::signal::number;

/// The resources that a variable can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open descriptors.
    NoFile,
    /// Bytes of a core file.
    Core,
    /// Processes of the user.
    NProc,
    /// Bytes of locked memory.
    MemLock,
    /// Bytes of the stack.
    Stack,
}

/// What one resource is limited to; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: Option<u64>,
    /// Where none is named, the hard limit stays, or is raised to the soft one where it is lower.
    pub hard: Option<Option<u64>>,
}

/// The limits that were set, each with its resource.
pub type Limits = Vec<(Resource, Limit)>;

impl Resource {
    /// The variable's name.
    pub fn variable(self) -> &'static str {
        match self {
            Resource::NoFile => "GUARD_LIMIT_NOFILE",
            Resource::Core => "GUARD_LIMIT_CORE",
            Resource::NProc => "GUARD_LIMIT_NPROC",
            Resource::MemLock => "GUARD_LIMIT_MEMLOCK",
            Resource::Stack => "GUARD_LIMIT_STACK",
        }
    }

    /// The values that its variable takes.
    pub(super) const fn takes(self) -> &'static str {
        if self.is_in_bytes() {
            "a size such as 512K, 64M or 1.5G or unlimited, alone or as SOFT:HARD"
        } else {
            "a number or unlimited, alone or as SOFT:HARD"
        }
    }

    const fn is_in_bytes(self) -> bool {
        match self {
            Resource::NoFile | Resource::NProc => false,
            Resource::Core | Resource::MemLock | Resource::Stack => true,
        }
    }

    fn parse_one(self, text: &str) -> Result<Option<u64>, String> {
        if text.eq_ignore_ascii_case("unlimited") {
            return Ok(None);
        }
        let value = if self.is_in_bytes() { size::parse(text)? } else { number(text).ok_or("not a number")? };
        // The kernel's word for unlimited.
        if value == u64::MAX || text.is_empty() { Err("not a number in range".to_owned()) } else { Ok(Some(value)) }
    }
}

impl Limit {
    /// `soft` or `soft:hard`.
    fn parse(resource: Resource, text: &str) -> Result<Limit, String> {
        let (soft, hard) = text.split_once(':').map_or((text, None), |(soft, hard)| (soft, Some(hard)));
        let limit =
            Limit { soft: resource.parse_one(soft)?, hard: hard.map(|hard| resource.parse_one(hard)).transpose()? };
        let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        match limit.hard {
            Some(hard) if value(limit.soft) > value(hard) => Err("the soft limit is above the hard one".to_owned()),
            _ => Ok(limit),
        }
    }

    fn show(self, resource: Resource) -> String {
        let one = |limit: Option<u64>| match limit {
            None => "unlimited".to_owned(),
            Some(value) if resource.is_in_bytes() => size::show(value),
            Some(value) => value.to_string(),
        };
        let soft = one(self.soft);
        self.hard.map_or_else(|| soft.clone(), |hard| format!("{soft}:{}", one(hard)))
    }
}

pub(super) fn set(config: &mut Config, resource: Resource, text: &str) -> Result<(), String> {
    config.limits.push((resource, Limit::parse(resource, text)?));
    Ok(())
}

pub fn show(config: &Config, resource: Resource) -> String {
    let limit = config.limits.iter().find(|(known, _)| *known == resource);
    limit.map_or("inherited".to_owned(), |(_, limit)| limit.show(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_soft_or_soft_and_hard() {
        for (resource, text, soft, hard) in [
            (Resource::NoFile, "65536", Some(65_536), None),
            (Resource::NoFile, "1024:4096", Some(1_024), Some(Some(4_096))),
            (Resource::Core, "unlimited", None, None),
            (Resource::Core, "0:unlimited", Some(0), Some(None)),
            (Resource::Stack, "8M:16M", Some(8 << 20), Some(Some(16 << 20))),
            (Resource::NProc, "Unlimited", None, None),
        ] {
            let limit = Limit { soft, hard };
            assert_eq!(Limit::parse(resource, text), Ok(limit), "{text}");
            assert_eq!(
                limit.show(resource),
                text.to_ascii_lowercase().replace('m', "M").replace("unliMited", "unlimited")
            );
        }
    }

    #[test]
    fn refuses_everything_else() {
        for (resource, text) in [
            (Resource::NoFile, ""),
            (Resource::NoFile, "8M"),
            (Resource::NoFile, "10:5"),
            (Resource::NoFile, "unlimited:5"),
            (Resource::NoFile, "5:"),
            (Resource::NoFile, ":5"),
            (Resource::NoFile, "-1"),
            (Resource::NoFile, "18446744073709551615"),
            (Resource::Stack, "1:2:3"),
        ] {
            assert!(Limit::parse(resource, text).is_err(), "{text}");
        }
    }
}
