fn main() -> std::process::ExitCode {
    postern_cli::run(std::env::args_os())
}
