"""What Genesis costs beside its raw limits: `./dev bench list`. docs/benchmarks.md says how to read the figures."""
