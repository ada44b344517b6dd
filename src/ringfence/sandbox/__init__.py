"""What a user holds: open, run, Sandbox, Process, Files, and the pipeline behind them."""
