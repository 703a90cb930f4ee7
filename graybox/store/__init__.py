"""What Graybox keeps on disk: runs, journal, blobs, metrics, samples, checkpoint manifests.

Free of torch, and of the rest of Graybox it knows only `graybox.errors`, so that the dashboard's read-only service
and any script can read a run without a trainer. Layout under a root directory:

    ROOT/.graybox.lock                   one backend per root (flock)
    ROOT/<run_id>/run.json               root.py, runs.py
    ROOT/<run_id>/journal.jsonl          journal.py
    ROOT/<run_id>/metrics.log            metrics.py
    ROOT/<run_id>/samples.h5             samples.py; since that snapshot: samples-<n>.log
    ROOT/<run_id>/blobs/<sha256>.npz     blobs.py
    ROOT/<run_id>/checkpoints/<id>.json  checkpoints.py; beside it <id>.pt, written by the trainer

Every file is written whole by temp file, fsync and rename (files.py), or grows by checksummed appends
(record_log.py, journal.py). Both survive `kill -9` at any moment.
"""
