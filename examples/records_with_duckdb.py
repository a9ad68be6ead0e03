"""Query a results folder with DuckDB: ``python examples/records_with_duckdb.py results``.

Records are plain Parquet files, so this needs no code of shipbench.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

# Methods have different settings, so files have different columns: union_by_name joins them.
ACCURACY = """
    SELECT task, method, recipe, overrides, backbone, backbone_sha256, shots,
        round(100 * avg(final_test_acc), 1) AS accuracy, count(*) AS runs
    FROM read_parquet(?, union_by_name = true)
    WHERE status = 'done' AND kind = 'trained' AND protocol = 'final'
    GROUP BY ALL
    ORDER BY task, accuracy DESC
"""
HARDEST = """
    SELECT task, index AS image, any_value(label) AS label, count(DISTINCT predicted) AS different_answers
    FROM read_parquet(?) AS predictions
    JOIN read_parquet(?, union_by_name = true) AS runs USING (run_id)
    WHERE status = 'done' AND kind = 'trained' AND protocol = 'final'
    GROUP BY task, index
    HAVING count_if(predicted = label) = 0
    ORDER BY task, image
    LIMIT 10
"""


def main(results: Path) -> None:
    """Print the accuracy of each method and its settings on each task, then ten images that every run gets wrong."""
    if not any(results.glob("runs/*.parquet")):
        sys.exit(f"{results} holds no records; make some with: shipbench run --method linear --tasks demo-tiny")
    runs, predictions = str(results / "runs" / "*.parquet"), str(results / "predictions" / "*.parquet")
    print("Accuracy in percent")
    print(duckdb.execute(ACCURACY, [runs]).df().to_string(index=False))
    print("\nImages that every run gets wrong")
    print(duckdb.execute(HARDEST, [predictions, runs]).df().to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
