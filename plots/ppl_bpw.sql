-- SPDX-License-Identifier: MIT
-- ppl_bpw: perplexity against bits per weight, one point per quant (the newest of equal runs).
-- Only what was measured on the same chunks of the same text belongs to one series.
SELECT label_engine, label_model, label_backend, label_text, label_n_ctx, label_chunks,
       point_qtype, point_commit, point_host, point_status, x, y, y_low, y_high,
       MAX(run_id) AS newest
FROM (SELECT engine AS label_engine, model AS label_model, backend AS label_backend,
             text AS label_text, n_ctx AS label_n_ctx,
             (SELECT NULLIF(COUNT(*), 0) FROM selected AS c
              WHERE c.run_id = s.run_id AND c.model_fp IS s.model_fp AND c.backend IS s.backend
                    AND c.metric = 'ppl_running') AS label_chunks,
             qtype AS point_qtype,
             COALESCE(NULLIF(engine_commit, ''), commit_id) AS point_commit, host AS point_host,
             CASE WHEN status NOT LIKE 'PASS%' THEN substr(status, 1, 4) END AS point_status,
             bpw AS x, value AS y, ci_low AS y_low, ci_high AS y_high, model_fp, run_id
      FROM selected AS s
      WHERE metric = 'ppl' AND test = 'perplexity' AND bpw > 0)
GROUP BY label_engine, label_model, label_backend, label_text, label_n_ctx, label_chunks,
         point_qtype, point_commit, point_host, model_fp
ORDER BY label_model, label_backend, x
