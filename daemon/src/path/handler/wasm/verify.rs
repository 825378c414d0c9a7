//! Whether a component is a handler: its imports are provided and its exports are there, with the right types.
//!
//! Reads the component's type, so that every missing import can be named in one sentence; only unknown imports are
//! refused, since what a handler may do is decided call by call.

use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, InstancePre, Linker};

use super::bindings::exports::tidegate::handler::on_message::{Failure, Message};
use super::bindings::exports::tidegate::handler::on_schedule::Trigger;
use super::exports::Linked;
use super::load::in_one_line;
use super::state::State;
use crate::path::handler::plugin::{Exports, LoadError};

/// What a handler may import, for people.
const PROVIDED: &str = "tidegate:handler/{types,publisher,kv,log,clock,random,config,system}@0.1.0 and the interfaces of \
     wasi:cli/imports@0.2";

/// Version of [`OURS`]; patch versions are compatible.
const OUR_VERSION: &str = "0.1";

/// The interfaces of our package.
const OURS: [&str; 8] = [
    "tidegate:handler/types",
    "tidegate:handler/publisher",
    "tidegate:handler/kv",
    "tidegate:handler/log",
    "tidegate:handler/clock",
    "tidegate:handler/random",
    "tidegate:handler/config",
    "tidegate:handler/system",
];

/// Version of [`WASI`]; patch versions are compatible.
const WASI_VERSION: &str = "0.2";

/// The interfaces of WASI 0.2 that `wasmtime-wasi` provides.
const WASI: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// What every handler exports.
const LIFECYCLE: &str = "tidegate:handler/lifecycle@0.1.0";

/// What a handler exports one of, at least.
const ON_MESSAGE: &str = "tidegate:handler/on-message@0.1.0";
const ON_SCHEDULE: &str = "tidegate:handler/on-schedule@0.1.0";

/// Resolves a component's imports and checks its exports.
///
/// # Errors
/// Names what is missing or differs.
pub(super) fn link(linker: &Linker<State>, component: &Component) -> Result<Linked, LoadError> {
    let ty = component.component_type();
    let names: Vec<String> =
        ty.imports(linker.engine()).map(|(name, _)| name.to_owned()).filter(|name| !is_provided(name)).collect();
    if !names.is_empty() {
        return Err(LoadError::UnknownImports { names, provided: PROVIDED });
    }
    let linked = linker.instantiate_pre(component).map_err(|error| import_type(&error))?;
    let exports = check_exports(&linked)?;
    // The exports are there, so what is left is nothing that a sentence of ours could tell.
    Linked::new(linked, exports).map_err(|error| LoadError::Prepare(in_one_line(&error)))
}

/// Whether the linker has an interface for this import; its types may still differ.
fn is_provided(import: &str) -> bool {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    (OURS.contains(&name) && is_compatible(version, OUR_VERSION))
        || (WASI.contains(&name) && is_compatible(version, WASI_VERSION))
}

/// Whether a version differs from `major.minor` in its patch number only, as the linker's own rule is.
fn is_compatible(version: &str, track: &str) -> bool {
    let patch = version.strip_prefix(track).and_then(|rest| rest.strip_prefix('.'));
    patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The linker knows the interface, but not in this form. Its error names it in backticks and tells the rest as causes.
fn import_type(error: &wasmtime::Error) -> LoadError {
    let outermost = error.to_string();
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    match outermost.split('`').nth(1) {
        Some(name) if !causes.is_empty() => LoadError::ImportType { name: name.to_owned(), reason: causes.join(": ") },
        _ => LoadError::Prepare(in_one_line(error)),
    }
}

/// The interfaces that are there, with their functions and types. Wasmtime itself would tell of a wrong type only when an
/// instance is made.
fn check_exports(linked: &InstancePre<State>) -> Result<Exports, LoadError> {
    let instance_type = linked.instance_type();
    let init = exported_function(linked, LIFECYCLE, "init")?;
    init.typecheck::<(), (Result<(), String>,)>(&instance_type).map_err(|error| export_type(LIFECYCLE, &error))?;
    let handle = optional(exported_function(linked, ON_MESSAGE, "handle"))?;
    if let Some(handle) = &handle {
        let checked = handle.typecheck::<(Message<'_>,), (Result<(), Failure>,)>(&instance_type);
        checked.map_err(|error| export_type(ON_MESSAGE, &error))?;
    }
    let run = optional(exported_function(linked, ON_SCHEDULE, "run"))?;
    if let Some(run) = &run {
        let checked = run.typecheck::<(Trigger, &str, u64), (Result<(), Failure>,)>(&instance_type);
        checked.map_err(|error| export_type(ON_SCHEDULE, &error))?;
    }
    if handle.is_none() && run.is_none() {
        return Err(LoadError::NoCall { on_message: ON_MESSAGE, on_schedule: ON_SCHEDULE });
    }
    Ok(Exports { on_message: handle.is_some(), on_schedule: run.is_some() })
}

/// An interface that may be absent; another version of it alone is an error all the same.
fn optional(found: Result<ComponentFunc, LoadError>) -> Result<Option<ComponentFunc>, LoadError> {
    match found {
        Ok(function) => Ok(Some(function)),
        Err(LoadError::MissingExport { found: None, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn exported_function(
    linked: &InstancePre<State>,
    interface: &'static str,
    function: &'static str,
) -> Result<ComponentFunc, LoadError> {
    let component = linked.component();
    let (engine, ty) = (component.engine(), component.component_type());
    let base = interface.split('@').next().unwrap_or(interface);
    let mut versions = ty.exports(engine).filter(|(name, _)| name.split('@').next() == Some(base));
    let other_form = |reason: &str| LoadError::ExportType { name: interface, reason: reason.to_owned() };
    let Some((name, export)) = versions.next() else {
        return Err(LoadError::MissingExport { name: interface, found: None });
    };
    if component.get_export_index(None, interface).is_none() {
        return Err(LoadError::MissingExport { name: interface, found: Some(name.to_owned()) });
    }
    let ComponentItem::ComponentInstance(instance) = export.ty else {
        return Err(other_form("it is not an interface"));
    };
    match instance.get_export(engine, function).map(|export| export.ty) {
        Some(ComponentItem::ComponentFunc(function)) => Ok(function),
        Some(_) => Err(other_form(&format!("{function} is not a function"))),
        None => Err(other_form(&format!("it has no function {function}"))),
    }
}

fn export_type(interface: &'static str, error: &wasmtime::Error) -> LoadError {
    LoadError::ExportType { name: interface, reason: in_one_line(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::handler::wasm::testing;

    /// A component in text, and how the refusal begins.
    fn check(text: &str, expected: &str) {
        let bytes = wat::parse_str(text).expect("is a component");
        let error = testing::load(&bytes).expect_err("is no handler").to_string();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }

    #[test]
    fn every_unknown_import_is_named() {
        check(
            r#"(component
                (import "tidegate:handler/files@0.1.0" (instance))
                (import "tidegate:handler/log@0.1.0" (instance))
                (import "tidegate:handler/log@0.2.0" (instance))
                (import "wasi:http/types@0.2.0" (instance))
                (import "wasi:cli/exit@0.3.0" (instance))
                (import "now" (func)))"#,
            "imports tidegate:handler/files@0.1.0, tidegate:handler/log@0.2.0, wasi:http/types@0.2.0, wasi:cli/exit@0.3.0, \
             now, which this version does not provide; it provides tidegate:handler/{types,publisher,kv,log,clock,\
             random,config,system}@0.1.0 and the interfaces of wasi:cli/imports@0.2",
        );
    }

    #[test]
    fn a_known_import_in_another_form_is_named() {
        check(
            r#"(component (import "tidegate:handler/log@0.1.1" (instance (export "flush" (func)))))"#,
            "imports tidegate:handler/log@0.1.1 in another form than this version provides: ",
        );
        check(
            r#"(component (import "tidegate:handler/clock@0.1.0" (instance (export "wall" (func (result string))))))"#,
            "imports tidegate:handler/clock@0.1.0 in another form than this version provides: ",
        );
        check(
            r#"(component (import "tidegate:handler/clock@0.1.0" (func)))"#,
            "imports tidegate:handler/clock@0.1.0 in another form than this version provides: ",
        );
    }

    #[test]
    fn the_list_of_provided_interfaces_is_that_of_the_linker() {
        let engine = testing::engine();
        let linker = engine.linker();
        let names =
            OURS.iter().map(|name| format!("{name}@0.1.0")).chain(WASI.iter().map(|name| format!("{name}@0.2.3")));
        for name in names {
            assert!(is_provided(&name), "{name}");
            let text = format!(r#"(component (import "{name}" (instance)))"#);
            let component =
                Component::new(linker.engine(), wat::parse_str(text).expect("is a component")).expect("compiles");
            linker.instantiate_pre(&component).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    }

    #[test]
    fn patch_versions_are_compatible() {
        let check = |version: &str, track: &str, expected: bool| {
            assert_eq!(is_compatible(version, track), expected, "{version} for {track}");
        };
        check("0.2.0", "0.2", true);
        check("0.2.12", "0.2", true);
        check("0.2", "0.2", false);
        check("0.2.", "0.2", false);
        check("0.2.0-rc-2023-11-10", "0.2", false);
        check("0.20.1", "0.2", false);
        check("", "0.2", false);
    }

    /// A component with `init` and these further definitions.
    fn with_init(more: &str) -> String {
        format!(
            r#"(component
                (core module $m (memory (export "memory") 1) (func (export "init") (result i32) (i32.const 0)))
                (core instance $c (instantiate $m))
                (func $init (result (result (error string))) (canon lift (core func $c "init") (memory $c "memory")))
                (instance $i (export "init" (func $init)))
                (export "tidegate:handler/lifecycle@0.1.0" (instance $i))
                {more})"#
        )
    }

    #[test]
    fn a_component_that_can_be_called_for_nothing_is_told() {
        check(
            &with_init(""),
            "exports neither tidegate:handler/on-message@0.1.0 nor tidegate:handler/on-schedule@0.1.0, as a handler must; \
             build it for the world message-handler, schedule-handler or full-handler",
        );
        check(
            &with_init(r#"(export "tidegate:handler/on-schedule@0.2.0" (instance $i))"#),
            "does not export tidegate:handler/on-schedule@0.1.0, as a handler must; it exports \
             tidegate:handler/on-schedule@0.2.0, which this version does not know",
        );
        check(
            &with_init(r#"(export "tidegate:handler/on-schedule@0.1.0" (instance $i))"#),
            "exports tidegate:handler/on-schedule@0.1.0 in another form than this version calls: it has no function run",
        );
        check(
            &with_init(
                r#"(instance $s (export "run" (func $init))) (export "tidegate:handler/on-schedule@0.1.0" (instance $s))"#,
            ),
            "exports tidegate:handler/on-schedule@0.1.0 in another form than this version calls: ",
        );
    }

    #[test]
    fn a_component_without_a_handlers_exports_is_told() {
        check(
            "(component)",
            "does not export tidegate:handler/lifecycle@0.1.0, as a handler must; build it for the world",
        );
        check(
            r#"(component (instance $i) (export "tidegate:handler/lifecycle@0.2.0" (instance $i)))"#,
            "does not export tidegate:handler/lifecycle@0.1.0, as a handler must; it exports \
             tidegate:handler/lifecycle@0.2.0, which this version does not know",
        );
        check(
            r#"(component (instance $i) (export "tidegate:handler/lifecycle@0.1.0" (instance $i)))"#,
            "exports tidegate:handler/lifecycle@0.1.0 in another form than this version calls: it has no function init;",
        );
        check(
            r#"(component
                (component $c) (instance $n (instantiate $c)) (instance $i (export "init" (instance $n)))
                (export "tidegate:handler/lifecycle@0.1.0" (instance $i)))"#,
            "exports tidegate:handler/lifecycle@0.1.0 in another form than this version calls: init is not a function;",
        );
        check(
            r#"(component
                (core module $m (func (export "init")))
                (core instance $c (instantiate $m))
                (func $init (canon lift (core func $c "init")))
                (instance $i (export "init" (func $init)))
                (export "tidegate:handler/lifecycle@0.1.0" (instance $i)))"#,
            "exports tidegate:handler/lifecycle@0.1.0 in another form than this version calls: ",
        );
    }
}
