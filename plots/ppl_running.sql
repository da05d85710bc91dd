-- SPDX-License-Identifier: MIT
-- ppl_running: perplexity of all chunks so far, one curve per run and model. The first chunks
-- scatter widely; they are drawn as far as they fit, but do not set the axis (scale_y).
SELECT run_id,
       engine AS label_engine, model AS label_model, qtype AS label_qtype,
       backend AS label_backend, text AS label_text, n_ctx AS label_n_ctx,
       type_k AS label_type_k, type_v AS label_type_v, n_ubatch AS label_n_ubatch,
       COALESCE(NULLIF(engine_commit, ''), commit_id) AS label_commit,
       model_fp AS series_model_fp,
       x, value AS y, ci_low AS y_low, ci_high AS y_high,
       x > MAX(2, MAX(x) OVER (PARTITION BY run_id, model_fp, backend) / 20) AS scale_y
FROM (SELECT *, CAST(substr(subject, 7) AS INTEGER) AS x
      FROM selected
      WHERE metric = 'ppl_running' AND test = 'perplexity' AND subject LIKE 'chunk %')
ORDER BY bpw DESC, model, qtype, backend, run_id, x
