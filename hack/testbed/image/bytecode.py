"""Compiles Python files for the image, whose root is read-only and so could never keep the result.

    python -I bytecode.py FOLDER PREFIX        every .py below FOLDER, as if it lay below PREFIX

Run on its own, in an interpreter that has done nothing else: what a compiler writes depends a
little on what its process has seen before. The result names no time, so it is the same every time.
"""

import py_compile
import sys
from pathlib import Path


def main(folder: str, prefix: str) -> None:
    root = Path(folder)
    for source in sorted(root.rglob("*.py")):
        try:
            py_compile.compile(
                str(source),
                dfile=f"{prefix}/{source.relative_to(root)}",
                doraise=True,
                optimize=0,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except py_compile.PyCompileError as error:
            # Templates and files for other versions are no modules of ours: they stay as they are.
            print(f"not compiled: {source.relative_to(root)}: {error.exc_type_name}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
