"""`python -m videogen_trainer.sample`: one video from a bundle, to look at what was learned."""

from __future__ import annotations

import argparse
from pathlib import Path

from videogen_models.bundle import load_model
from videogen_models.sealed import CorruptError
from videogen_models.video import encode_mp4


def main() -> None:
    """Write the video of a prompt as mp4."""
    arguments = _arguments()
    try:
        model = load_model(arguments.storage / arguments.bundle)
        frames = model.generate([arguments.prompt], [arguments.seed], arguments.steps)[0]
        arguments.out.write_bytes(encode_mp4(frames, model.config.frame_rate))
    except (CorruptError, ValueError, FloatingPointError, OSError) as error:
        raise SystemExit(f"sample: {error}") from error
    print(f"{arguments.out}: {len(frames)} frames of {frames.shape[1]} x {frames.shape[2]}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="videogen_trainer.sample", description="Generate one video from a bundle.")
    parser.add_argument("--storage", type=Path, required=True, help="root of the storage")
    parser.add_argument("--bundle", required=True, help="the bundle's folder, below the storage's root")
    parser.add_argument("--prompt", required=True, help="what the video shall show")
    parser.add_argument("--seed", type=int, default=0, help="same prompt and seed, same video (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps, 1 to 1000 (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="mp4 file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
