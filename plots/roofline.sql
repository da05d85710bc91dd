-- SPDX-License-Identifier: MIT
-- roofline: products of the newest kernel-bench against what the machine can do, one curve per type,
-- from one token a call to many, each in its fastest column; and the roofs that the run measured.
-- Of CPU columns those with the most threads; a device has 0.
-- x: multiply-adds for each byte that comes from memory; y: G multiply-adds a second.
WITH rows AS (
    SELECT * FROM selected
    WHERE test = 'kernel-bench' AND status = 'PASS'
      AND run_id = (SELECT max(run_id) FROM selected
                    WHERE test = 'kernel-bench' AND metric = 'kernel_gmacs' AND qtype IS NOT NULL)
),
threads AS (SELECT max(n_threads) AS n FROM rows WHERE metric = 'kernel_gmacs'),
product AS (
    SELECT g.run_id, g.qtype, g.backend, g.n_ubatch, g.n_threads,
           g.value / b.value AS x, g.value AS y, g.ci_low AS y_low, g.ci_high AS y_high
    FROM rows g JOIN rows b
      ON b.metric = 'kernel_gbs' AND b.subject = g.subject AND b.n_ubatch = g.n_ubatch
     AND b.n_threads = g.n_threads
    WHERE g.metric = 'kernel_gmacs' AND g.qtype IS NOT NULL AND g.n_threads IN (0, (SELECT n FROM threads))
      AND g.subject NOT LIKE 'packed %' -- of one token, other bytes: no point of these curves
),
fastest AS (
    SELECT *, row_number() OVER (PARTITION BY qtype, n_ubatch ORDER BY y DESC) AS place FROM product
),
-- Six curves and two roofs are as many as can be told apart.
chosen AS (
    SELECT qtype, group_concat(DISTINCT backend) AS columns, row_number() OVER (ORDER BY
        CASE qtype WHEN 'iq4_kt' THEN 0 WHEN 'iq3_kt' THEN 1 WHEN 'iq2_kt' THEN 2 WHEN 'q8_0' THEN 3
                   WHEN 'q4_0' THEN 4 WHEN 'f16' THEN 5 ELSE 6 END, qtype) AS place
    FROM fastest WHERE place = 1 GROUP BY qtype
),
memory AS (SELECT max(value) AS gbs FROM rows
           WHERE metric = 'peak_gbs' AND subject = 'read' AND n_threads IN (0, (SELECT n FROM threads))),
peak AS (
    SELECT cells, max(value) AS gmacs FROM rows
    WHERE metric = 'peak_gmacs' AND n_threads IN (0, (SELECT n FROM threads))
    GROUP BY substr(cells, 1, instr(cells, '@'))
    ORDER BY gmacs DESC LIMIT 2
),
span AS (SELECT min(x) AS low, max(x) AS high FROM product),
roof AS (
    SELECT cells, gmacs, gbs, low / 1.5 AS x, low / 1.5 * gbs AS y FROM peak, memory, span
    UNION ALL SELECT cells, gmacs, gbs, gmacs / gbs, gmacs FROM peak, memory, span
    UNION ALL SELECT cells, gmacs, gbs, max(1.5 * high, 2 * gmacs / gbs), gmacs
    FROM peak, memory, span
)
SELECT o.run_id, 'roof: reading ' || round(gbs, 1) || ' GB/s, ' || r.cells || ' ' || CAST(round(gmacs) AS INTEGER)
           || ' G MAC/s' AS label_what,
       NULLIF(o.n_threads, 0) AS label_n_threads, COALESCE(o.gpu, o.cpu) AS label_cpu, o.host AS label_host,
       o.commit_id AS label_commit, 0 AS series_order,
       r.x AS x, r.y AS y, NULL AS y_low, NULL AS y_high
FROM roof r, (SELECT run_id, n_threads, cpu, gpu, host, commit_id FROM rows
              WHERE n_threads IN (0, (SELECT n FROM threads))
              ORDER BY gpu IS NULL LIMIT 1) o
UNION ALL
SELECT p.run_id, p.qtype || '@' || c.columns, NULLIF(p.n_threads, 0), COALESCE(o.gpu, o.cpu), o.host, o.commit_id, c.place,
       p.x, p.y, p.y_low, p.y_high
FROM fastest p JOIN chosen c ON c.qtype = p.qtype AND p.place = 1 AND c.place <= 6,
     (SELECT cpu, gpu, host, commit_id FROM rows ORDER BY gpu IS NULL LIMIT 1) o
ORDER BY series_order, label_what, x
