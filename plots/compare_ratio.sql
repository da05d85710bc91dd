-- SPDX-License-Identifier: MIT
-- compare_ratio: ln(PPL_B/PPL_A) of all chunks so far, one curve per comparison, in the order of
-- the run. What lies far beyond the margin counts for the axis only near the end of the run (scale_y):
-- the first chunks scatter widely, and so do their intervals.
SELECT run_id, model AS label_model, qtype AS label_qtype, arms AS label_arms, text AS label_text,
       n_ctx AS label_n_ctx, n_threads AS label_n_threads, n_ubatch AS label_n_ubatch,
       type_k AS label_type_k, type_v AS label_type_v,
       COALESCE(NULLIF(engine_commit, ''), commit_id) AS label_commit,
       model_fp AS series_model_fp, arm_b AS series_arm_b, settings AS series_settings,
       COALESCE(verdict, 'unfinished')
       || CASE WHEN c_low IS NOT NULL
               THEN printf(', %+.5f in [%+.5f, %+.5f]', ln_ratio, c_low, c_high)
               WHEN ln_ratio IS NOT NULL THEN printf(', %+.5f', ln_ratio)
               ELSE '' END AS name_verdict,
       x, y, y_low, y_high, margin AS y_mark,
       COALESCE(y_low > -3 * margin AND y_high < 3 * margin, 0) OR x >= 0.8 * last AS scale_y
FROM (SELECT s.*, c.arms, c.verdict, c.ln_ratio, c.ci_low AS c_low, c.ci_high AS c_high,
             c.margin, s.n_rep AS x, s.value AS y, s.ci_low AS y_low, s.ci_high AS y_high,
             MAX(s.n_rep) OVER (PARTITION BY s.run_id, s.model_fp, s.backend, s.arm_b, s.settings)
             AS last
      FROM selected AS s
      LEFT JOIN comparison AS c ON c.run_id = s.run_id AND c.model_fp IS s.model_fp
           AND c.backend IS s.backend AND c.arm_b IS s.arm_b AND c.settings IS s.settings
      WHERE s.test = 'compare' AND s.metric = 'ln_ratio' AND s.subject LIKE 'chunk %')
ORDER BY model, bpw DESC, run_id, x
