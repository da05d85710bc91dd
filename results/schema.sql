-- SPDX-License-Identifier: MIT
-- schema.sql - the result row in SQLite, defined once; ROW_FIELD_LIST in harness/result/row.h is the
-- same list in the same order, and a test compares the two.
--
-- The database is an index over the CSV files in results/runs: `ggauge history` rebuilds it, nothing
-- is ever only here. An empty CSV field is NULL. A value of nan is NULL as well, since SQLite knows no
-- NaN; the row's status says NONFINITE. Infinities stay infinities.
--
-- There is no UNIQUE key: a run is replaced as a whole by its run_id, and inside a run any two rows
-- may differ in nothing but the settings, which may be NULL.

PRAGMA user_version = 1; -- ROW_SCHEMA

CREATE TABLE result (
    -- the run
    schema          INTEGER NOT NULL,
    run_id          TEXT NOT NULL,
    time_utc        TEXT,
    commit_id       TEXT,
    dirty           INTEGER,
    host            TEXT,
    cpu             TEXT,
    cpu_features    TEXT,
    n_cpus          INTEGER,
    mem_bytes       INTEGER,
    governor        TEXT,
    load1           REAL,
    gpu             TEXT,
    driver          TEXT,
    compiler        TEXT,
    flags           TEXT,
    -- what was measured
    engine          TEXT,
    engine_commit   TEXT,
    backend         TEXT,
    placement       TEXT,
    cells           TEXT,
    model           TEXT,
    model_fp        TEXT,
    text            TEXT,
    text_fp         TEXT,
    arch            TEXT,
    qtype           TEXT,
    bpw             REAL,
    test            TEXT,
    subject         TEXT,
    arm_b           TEXT,
    n_ctx           INTEGER,
    n_pp            INTEGER,
    n_tg            INTEGER,
    n_threads       INTEGER,
    n_threads_batch INTEGER,
    n_batch         INTEGER,
    n_ubatch        INTEGER,
    n_kv            INTEGER,
    type_k          TEXT,
    type_v          TEXT,
    seed            INTEGER,
    settings        TEXT,
    -- the value
    metric          TEXT NOT NULL,
    value           REAL,
    ci_low          REAL,
    ci_high         REAL,
    n_rep           INTEGER,
    status          TEXT
);

CREATE INDEX result_run ON result (run_id);
CREATE INDEX result_chart ON result (metric, model_fp, test, n_kv);
CREATE INDEX result_commit ON result (commit_id, metric);

-- One line per run.
CREATE VIEW run AS
SELECT run_id, min(time_utc) AS time_utc, commit_id, dirty, host, cpu, gpu,
       group_concat(DISTINCT test) AS tests, count(*) AS n_rows,
       sum(status NOT LIKE 'PASS%' AND status <> 'open') AS n_not_pass
FROM result
GROUP BY run_id;

-- The newest run of every test on every model, text, engine, backend and machine: run_id begins with
-- the time, so the greatest is the newest.
CREATE VIEW latest AS
SELECT r.*
FROM (SELECT max(run_id) AS run_id, model_fp, text_fp, test, engine, backend, host
      FROM result
      GROUP BY model_fp, text_fp, test, engine, backend, host) AS newest
JOIN result AS r ON r.run_id = newest.run_id
    AND r.model_fp IS newest.model_fp AND r.text_fp IS newest.text_fp
    AND r.test IS newest.test AND r.engine IS newest.engine
    AND r.backend IS newest.backend AND r.host IS newest.host;

-- The table of sweep-bench, one line per depth of the cache.
CREATE VIEW sweep AS
SELECT run_id, model, model_fp, qtype, engine, backend, n_threads, n_pp, n_tg, n_kv,
       max(CASE WHEN metric = 'pp_s' THEN value END) AS pp_s,
       max(CASE WHEN metric = 'pp_tps' THEN value END) AS pp_tps,
       max(CASE WHEN metric = 'tg_s' THEN value END) AS tg_s,
       max(CASE WHEN metric = 'tg_tps' THEN value END) AS tg_tps
FROM result
WHERE metric IN ('pp_s', 'pp_tps', 'tg_s', 'tg_tps') AND test = 'sweep-bench'
GROUP BY run_id, model_fp, engine, backend, n_threads, n_pp, n_tg, n_kv;

-- One line per comparison of two arms. A comparison is known by its first five fields, which its
-- other rows share. verdict: "PASS", "FAIL MEAN", "UNDECIDED", ..., NULL if the run was cut short;
-- arms: "ref against avx2", B's options left out where they are A's, its model named if it is another.
CREATE VIEW comparison AS
SELECT run_id, model_fp, backend, arm_b, settings, model, qtype, bpw, verdict, ln_ratio, ci_low, ci_high,
       chunks, margin,
       COALESCE(backend, 'file') || ' against '
       || CASE WHEN arm_b LIKE '% ' || options
               THEN substr(arm_b, 1, length(arm_b) - length(options) - 1)
               ELSE arm_b END
       || CASE WHEN model_b IS NULL THEN '' ELSE ' of ' || model_b END AS arms
FROM (SELECT run_id, model_fp, backend, arm_b, settings, max(model) AS model, max(qtype) AS qtype,
             max(bpw) AS bpw, max(n_rep) AS chunks,
             max(CASE subject WHEN 'run' THEN status END) AS verdict,
             max(CASE subject WHEN 'run' THEN value END) AS ln_ratio,
             max(CASE subject WHEN 'run' THEN ci_low END) AS ci_low,
             max(CASE subject WHEN 'run' THEN ci_high END) AS ci_high,
             max('-t ' || n_threads || ' -ub ' || n_ubatch || ' ' || type_k || '/' || type_v)
             AS options,
             CASE WHEN json_valid(settings) THEN json_extract(settings, '$.margin') END AS margin,
             CASE WHEN json_valid(settings)
                  THEN json_extract(settings, '$.model_b[0]') || ' '
                       || json_extract(settings, '$.model_b[1]') END AS model_b
      FROM result
      WHERE test = 'compare' AND metric = 'ln_ratio'
      GROUP BY run_id, model_fp, backend, arm_b, settings);
