//! Components that no compiler of a language would make, from the text form of WebAssembly.

/// A handler that does this: the inside of a core module, which may define `$init` and `$handle`, of which the latter takes a pointer
/// to the message; both return a pointer to their result. At 0x80 there are zeros: the result ok. It may call `$publish`. `beside` are
/// further definitions of the component.
pub fn component(body: &str, beside: &str) -> Vec<u8> {
    let unless_defined = |name: &str, definition: &str| {
        if body.contains(&format!("(func {name} ")) { String::new() } else { definition.to_owned() }
    };
    let init = unless_defined("$init", "(func $init (result i32) (i32.const 0x80))");
    let handle = unless_defined("$handle", "(func $handle (param i32) (result i32) (i32.const 0x80))");
    let text = include_str!("component.wat").replace("$BODY$", &format!("{body}\n{init}\n{handle}"));
    wat::parse_str(text.replace("$BESIDE$", beside)).expect("is a component")
}

/// The same handler, with so many bytes that mean nothing.
pub fn padded(mut component: Vec<u8>, bytes: usize) -> Vec<u8> {
    // A custom section: its number, its length in five bytes, its name of one byte, and what nobody reads.
    let rest = bytes.checked_sub(component.len() + 6).expect("is larger than the component");
    component.push(0);
    component.extend((0..5).map(|group| (rest >> (7 * group)) as u8 & 0x7f | if group < 4 { 0x80 } else { 0 }));
    component.extend([1, b'x']);
    component.resize(bytes, 0);
    component
}

/// A handler that takes long to compile, never the same twice for different numbers: so many functions of about 1 KiB each.
pub fn laborious(functions: usize, number: u32) -> Vec<u8> {
    let step = |at: usize| {
        format!(
            "(local.set $x (i32.xor (i32.mul (local.get $x) (i32.const {})) (i32.rotl (local.get $x) (i32.const 7))))",
            at + 3
        )
    };
    let body: String = (0..60).map(step).collect();
    let function = |at: usize| {
        format!(
            "(func (param $x i32) (result i32) (local.set $x (i32.const {})) {body} (local.get $x))\n",
            at as u32 ^ number << 16
        )
    };
    component(&(0..functions).map(function).collect::<String>(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_has_the_size_that_is_asked_for() {
        let small = component("", "");
        assert_eq!(padded(small.clone(), small.len() + 6).len(), small.len() + 6);
        let padded = padded(small.clone(), 100_000);
        assert_eq!((padded.len(), &padded[..small.len()]), (100_000, &small[..]));
    }

    #[test]
    fn what_takes_long_differs_by_its_number() {
        let (one, other) = (laborious(50, 1), laborious(50, 2));
        assert_ne!(one, other);
        assert!(one.len() > 30_000, "{} bytes", one.len());
    }
}
