# SPDX-License-Identifier: MIT
# roofline - speed of products against the multiply-adds that each byte of weights is good for, with
# the roofs measured in the same run. Columns: x y y_low y_high
eval chart_title('Products and the roofline')
eval x_title('multiply-adds for each byte from memory' \
    .(strlen(bars) ? '; bars: 95 % interval of the median' : ''))
eval y_title('G multiply-adds/s (higher is better)')
stats data using 1:2 nooutput
set logscale xy
set xrange [STATS_min_x / 1.2:STATS_max_x * 1.2]
set yrange [STATS_min_y / 1.5:STATS_max_y * 1.6]
set xtics autofreq
set ytics autofreq
set format x '%g'
is_roof(i) = name[i][1:5] eq 'roof:'
plot for [i = 1:n_series] data index i - 1 using 1:(is_roof(i) ? NaN : $2):3:4 with yerrorbars \
         lt i dt 1 lw 1 ps 0.1 notitle, \
     for [i = 1:n_series] data index i - 1 using 1:(is_roof(i) ? $2 : NaN) with lines \
         lc rgb '#888888' lw 1.5 dt i title (is_roof(i) ? name[i] : ''), \
     for [i = 1:n_series] data index i - 1 using 1:(is_roof(i) ? NaN : $2) with linespoints lt i \
         title (is_roof(i) ? '' : name[i])
