# SPDX-License-Identifier: MIT
# ppl_running - running perplexity with its 95 % band. Columns: x y y_low y_high
eval chart_title('Running perplexity')
eval x_title('chunks evaluated; band: 95 % interval, tokens as independent')
eval y_title('perplexity (lower is better)')
# About 300 points of a curve are enough for 800 pixels, and 20 markers for the eye.
thin = ceil((x_hi - x_lo) / 300.0)
gap = ceil((x_hi - x_lo) / thin / 20.0)
plot for [i = 1:n_series] data index i - 1 every thin using 1:3:4 with filledcurves \
         lt i fs transparent solid 0.15 noborder notitle, \
     for [i = 1:n_series] data index i - 1 every thin using 1:2 with linespoints \
         lt i pointinterval gap title name[i]
