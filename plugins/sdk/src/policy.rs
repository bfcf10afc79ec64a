//! What every policy says about itself, and its settings.

use serde::de::DeserializeOwned;

use crate::bindings::plugin::exports::roost::policy::plugin::{Description, Guest};
use crate::panics;

/// A policy. Beside this it implements the trait of each hook that it decides.
pub trait Policy {
    /// What an operator sets; [`NoSettings`] if nothing. The host has the settings checked before
    /// it stores them, by parsing them into this type: `#[serde(deny_unknown_fields)]` catches an
    /// operator's typing errors, `#[serde(default)]` takes `{}`.
    type Settings: Settings;

    /// Checks what the type alone can't: ranges, and members that must fit together. The error is
    /// shown to the operator.
    ///
    /// # Errors
    /// The settings are not to be used, and why.
    fn check(settings: &Self::Settings) -> Result<(), String> {
        let _ = settings;
        Ok(())
    }
}

/// What an operator may set. Every type that serde deserializes is this.
pub trait Settings: Sized {
    /// From a JSON object.
    ///
    /// # Errors
    /// It is not one of this type, and why.
    fn parse(json: &str) -> Result<Self, String>;
}

impl<T: DeserializeOwned> Settings for T {
    fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }
}

/// Settings of a policy that has none: `{}` and nothing else. It does without a JSON parser, which
/// is two thirds of a small component.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct NoSettings {}

impl Settings for NoSettings {
    fn parse(json: &str) -> Result<Self, String> {
        let mut rest = json.bytes().filter(|byte| !byte.is_ascii_whitespace());
        match (rest.next(), rest.next(), rest.next()) {
            (Some(b'{'), Some(b'}'), None) => Ok(Self {}),
            _ => Err("it takes no settings".to_owned()),
        }
    }
}

/// What a policy is called. [`crate::export!`] takes it from the `Cargo.toml`.
#[doc(hidden)]
pub trait About: Policy {
    const NAME: &'static str;
    const VERSION: &'static str;
    const SUMMARY: &'static str;
}

/// Stands for a policy where the generated code wants a type of its own.
#[doc(hidden)]
pub struct Exported<P>(std::marker::PhantomData<P>);

impl<P: About> Guest for Exported<P> {
    fn describe() -> Description {
        panics::leave_notes();
        Description {
            name: P::NAME.to_owned(),
            version: P::VERSION.to_owned(),
            summary: P::SUMMARY.to_owned(),
            attributes: Vec::new(),
        }
    }

    fn validate_settings(settings: String) -> Result<(), String> {
        panics::leave_notes();
        validate::<P>(&settings)
    }
}

/// Whether `settings` are a policy's.
pub(crate) fn validate<P: Policy>(settings: &str) -> Result<(), String> {
    P::check(&P::Settings::parse(settings)?)
}

/// The settings of a call. The host passes only those that were found valid.
pub(crate) fn settings<P: Policy>(json: &str) -> P::Settings {
    match P::Settings::parse(json) {
        Ok(settings) => settings,
        Err(error) => panic!("settings that validate-settings would refuse: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_settings_are_an_empty_object() {
        assert!(NoSettings::parse("{}").is_ok());
        assert!(NoSettings::parse(" {\n} ").is_ok());
        for other in ["", "{", "[]", "{}{}", r#"{"a":1}"#] {
            assert!(NoSettings::parse(other).is_err(), "{other:?}");
        }
    }
}
