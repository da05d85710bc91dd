# SPDX-License-Identifier: MIT
# ppl_bpw - perplexity against size, bars: 95 % interval.
# Columns: x y y_low y_high text_x text_y lead_x lead_y side text (placed by render.py so that none
# covers another). An empty text hides a label: gnuplot 5.4 crashes on labels without a valid point.
eval chart_title('Perplexity against bits per weight')
eval x_title('bits per weight'.bars)
eval y_title('perplexity (lower is better)')
plot for [i = 1:n_series] data index i - 1 using 1:2:($7 - $1):($8 - $2) with vectors nohead \
         lc rgb '#999999' lw 0.8 dt 1 notitle, \
     for [i = 1:n_series] data index i - 1 using 1:2:3:4 with yerrorbars \
         lt i dt 1 lw 1.5 ps 0.1 notitle, \
     for [i = 1:n_series] data index i - 1 using 1:2 with points lt i ps 1.2 * k title name[i], \
     for [i = 1:n_series] data index i - 1 using 5:6:($9 > 0 ? stringcolumn(10) : '') \
         with labels left notitle, \
     for [i = 1:n_series] data index i - 1 using 5:6:($9 < 0 ? stringcolumn(10) : '') \
         with labels right notitle
