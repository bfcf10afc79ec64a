//! `roost:policy`, as Rust: one module for each interface, so that a component exports those that
//! it implements and imports those that it uses, and no others.
//!
//! The types have the JSON of the API, the decision journal and fixtures: the names of the WIT,
//! `{"retry-after": 200}` for the cases of variants; `attributes` may be left out.
#![allow(missing_docs, clippy::all, unused)]

/// Bindings of one interface, whose `types` are read and written as JSON. `growing` are those with
/// `attributes`.
macro_rules! interface {
    (
        $name:ident = $world:literal, { $($with:tt)* }, { $($export:tt)* },
        types: [$($type_:literal)*], growing: [$($growing:literal)*]
    ) => {
        pub mod $name {
            wit_bindgen::generate!({
                path: "wit",
                inline: $world,
                with: { $($with)* },
                generate_all,
                additional_derives: [PartialEq],
                additional_type_attributes: {
                    $($type_: [
                        #[derive(serde::Serialize, serde::Deserialize)]
                        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
                    ],)*
                },
                additional_member_attributes: { $($growing: [#[serde(default)]],)* },
                runtime_path: "roost_plugin::private::rt",
                $($export)*
            });
        }
    };
}

/// An interface that a policy exports.
macro_rules! exported {
    (
        $name:ident = $world:literal, $macro:literal, $module:literal,
        types: [$($type_:literal)*], growing: [$($growing:literal)*]
    ) => {
        interface!(
            $name = $world,
            { "roost:policy/types@0.1.0": roost_plugin::bindings::types::roost::policy::types },
            { pub_export_macro: true, export_macro_name: $macro, default_bindings_module: $module, },
            types: [$($type_)*], growing: [$($growing)*]
        );
    };
}

interface!(
    types = "package roost:sdk; world types { import roost:policy/types@0.1.0; }", {}, {},
    types: ["roost:policy/types@0.1.0/context" "roost:policy/types@0.1.0/vm"],
    growing: ["roost:policy/types@0.1.0/context.attributes" "roost:policy/types@0.1.0/vm.attributes"]
);
interface!(
    host = "package roost:sdk; world host { import roost:policy/host@0.1.0; }",
    { "roost:policy/types@0.1.0": roost_plugin::bindings::types::roost::policy::types },
    { pub_export_macro: true, },
    types: [], growing: []
);
exported!(
    plugin = "package roost:sdk; world plugin { export roost:policy/plugin@0.1.0; }",
    "export_plugin", "roost_plugin::bindings::plugin",
    types: [], growing: []
);
exported!(
    admission = "package roost:sdk; world admission { export roost:policy/admission@0.1.0; }",
    "export_admission", "roost_plugin::bindings::admission",
    types: [
        "roost:policy/admission@0.1.0/request" "roost:policy/admission@0.1.0/usage"
        "roost:policy/admission@0.1.0/facts" "roost:policy/admission@0.1.0/change"
        "roost:policy/admission@0.1.0/decision"
    ],
    growing: ["roost:policy/admission@0.1.0/facts.attributes"]
);
exported!(
    cleanup = "package roost:sdk; world cleanup { export roost:policy/cleanup@0.1.0; }",
    "export_cleanup", "roost_plugin::bindings::cleanup",
    types: ["roost:policy/cleanup@0.1.0/facts" "roost:policy/cleanup@0.1.0/decision"],
    growing: ["roost:policy/cleanup@0.1.0/facts.attributes"]
);
exported!(
    recovery = "package roost:sdk; world recovery { export roost:policy/recovery@0.1.0; }",
    "export_recovery", "roost_plugin::bindings::recovery",
    types: [
        "roost:policy/recovery@0.1.0/incident" "roost:policy/recovery@0.1.0/past-incident"
        "roost:policy/recovery@0.1.0/facts" "roost:policy/recovery@0.1.0/action"
        "roost:policy/recovery@0.1.0/decision"
    ],
    growing: ["roost:policy/recovery@0.1.0/incident.attributes" "roost:policy/recovery@0.1.0/facts.attributes"]
);
exported!(
    billing = "package roost:sdk; world billing { export roost:policy/billing@0.1.0; }",
    "export_billing", "roost_plugin::bindings::billing",
    types: [
        "roost:policy/billing@0.1.0/window" "roost:policy/billing@0.1.0/facts" "roost:policy/billing@0.1.0/charge"
    ],
    growing: ["roost:policy/billing@0.1.0/window.attributes" "roost:policy/billing@0.1.0/facts.attributes"]
);
exported!(
    observer = "package roost:sdk; world observer { export roost:policy/observer@0.1.0; }",
    "export_observer", "roost_plugin::bindings::observer",
    types: [], growing: []
);
