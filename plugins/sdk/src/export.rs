//! The macro that makes a component of a policy.

/// Makes a component of a policy: `export!(Type: hook, …)` with the hooks that it decides.
///
/// A panic's message is left where the host finds it, so that an operator sees more of it than a
/// trap. Nothing is imported for that.
///
/// Name, version and summary are those in the `Cargo.toml` of the crate that it is used in; use it
/// once in a crate.
#[macro_export]
macro_rules! export {
    ($policy:ty: $($hook:ident),+ $(,)?) => {
        const _: () = {
            impl $crate::private::About for $policy {
                const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
                const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
                const SUMMARY: &'static str = ::core::env!("CARGO_PKG_DESCRIPTION");
            }
            #[cfg(not(target_arch = "wasm32"))]
            impl $crate::testing::Decides for $policy {
                fn decide_json(
                    hook: &str,
                    facts: $crate::private::Value,
                ) -> ::core::result::Result<$crate::private::Value, ::std::string::String> {
                    match hook {
                        $(::core::stringify!($hook) => $crate::$hook::decide_json::<$policy>(facts),)+
                        _ => ::core::result::Result::Err(::std::format!("it does not decide {hook}")),
                    }
                }
            }
            // What is exported are functions of the component, which a native build has not.
            #[cfg(target_arch = "wasm32")]
            type Exported = $crate::private::Exported<$policy>;
            #[cfg(target_arch = "wasm32")]
            $crate::bindings::plugin::export_plugin!(
                Exported with_types_in $crate::bindings::plugin
            );
            $($crate::export!(@hook $policy, $hook);)+
        };
    };
    (@hook $policy:ty, admission) => {
        $crate::export!(@one $policy, admission, Admission, export_admission);
    };
    (@hook $policy:ty, cleanup) => {
        $crate::export!(@one $policy, cleanup, Cleanup, export_cleanup);
    };
    (@hook $policy:ty, recovery) => {
        $crate::export!(@one $policy, recovery, Recovery, export_recovery);
    };
    (@hook $policy:ty, billing) => {
        $crate::export!(@one $policy, billing, Billing, export_billing);
    };
    (@hook $policy:ty, observer) => {
        $crate::export!(@one $policy, observer, Observer, export_observer);
    };
    (@hook $policy:ty, $other:ident) => {
        ::core::compile_error!(
            "there are the hooks admission, cleanup, recovery, billing and observer"
        );
    };
    (@one $policy:ty, $hook:ident, $trait:ident, $macro:ident) => {
        // The same error in a native build as in one for WebAssembly.
        const _: () = {
            const fn decides<P: $crate::$hook::$trait>() {}
            decides::<$policy>();
        };
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::$hook::$macro!(Exported with_types_in $crate::bindings::$hook);
    };
}
