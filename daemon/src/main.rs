//! The program `tidegate`: hands over to the library, which holds everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::main()
}
