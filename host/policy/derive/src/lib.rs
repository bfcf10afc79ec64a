//! `#[derive(WitJson)]`: one JSON shape for the types that are generated from WIT.
//!
//! Generators of bindings let a derive be added to each type, but no attribute, so serde's own
//! derives would write Rust's names. This one writes those of the WIT: `now-ms`, and
//! `{"retry-after": 200}` or `"allow"` for the cases of a variant. A tuple is an array. An
//! unknown field is an error; an absent `option` is none; absent `attributes` are empty, so that
//! facts are quick to write by hand.
//!
//! The type's crate needs `serde`.
#![forbid(unsafe_code)]

use proc_macro::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Field, parse_macro_input, parse_quote};

/// The field that is empty where it is absent.
const ATTRIBUTES: &str = "attributes";

/// Implements `serde::Serialize` and `serde::Deserialize` with the names of the WIT.
#[proc_macro_derive(WitJson)]
pub fn wit_json(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    expand(item).unwrap_or_else(|error| error.into_compile_error().into())
}

/// Serde can derive for a type by its double ("Deriving De/Serialize for type in a different
/// crate"); the double is where the attributes go.
fn expand(mut item: DeriveInput) -> syn::Result<TokenStream> {
    if !item.generics.params.is_empty() {
        let reason = "a type of a WIT package has no parameters";
        return Err(syn::Error::new_spanned(&item.generics, reason));
    }
    let name = item.ident.clone();
    let remote = name.to_string();
    let double = format_ident!("{name}AsJson");
    item.ident = double.clone();
    item.vis = syn::Visibility::Inherited;
    item.attrs = vec![
        parse_quote!(#[derive(::serde::Serialize, ::serde::Deserialize)]),
        parse_quote!(#[serde(remote = #remote, rename_all = "kebab-case")]),
        parse_quote!(#[allow(dead_code)]),
    ];
    match &mut item.data {
        Data::Struct(data) => {
            item.attrs.push(parse_quote!(#[serde(deny_unknown_fields)]));
            data.fields.iter_mut().for_each(prepare);
        }
        Data::Enum(data) => {
            for variant in &mut data.variants {
                variant.attrs.clear();
                variant.fields.iter_mut().for_each(prepare);
            }
        }
        Data::Union(data) => {
            let reason = "a type of a WIT package is no union";
            return Err(syn::Error::new_spanned(data.union_token, reason));
        }
    }
    Ok(quote! {
        const _: () = {
            #item
            impl ::serde::Serialize for #name {
                fn serialize<S: ::serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    #double::serialize(self, serializer)
                }
            }
            impl<'de> ::serde::Deserialize<'de> for #name {
                fn deserialize<D: ::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    #double::deserialize(deserializer)
                }
            }
        };
    }
    .into())
}

/// What other derives read is none of serde's business.
fn prepare(field: &mut Field) {
    field.attrs.clear();
    if field
        .ident
        .as_ref()
        .is_some_and(|ident| ident == ATTRIBUTES)
    {
        field.attrs.push(parse_quote!(#[serde(default)]));
    }
}
