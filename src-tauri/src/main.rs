//! The desktop app: see the library of this package.

fn main() -> anyhow::Result<()> {
    postern_desktop::run()
}
