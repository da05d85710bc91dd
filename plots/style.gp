# SPDX-License-Identifier: MIT
# style.gp - the look that all charts share.
#
# render.py sets before this is loaded: fmt ("svg" or "png"), out, canvas_w, canvas_h (pixels),
# plot_left, plot_right, plot_bottom, plot_top (shares of the canvas), subtitle, x_log,
# x_lo, x_hi, x_tics, y_log, y_lo, y_hi, y_tics; for the chart: data, n_series, legend_lines, bars
# (text for the x axis), name[1..n_series].
# Colours: Okabe and Ito, "Color Universal Design" (2008), without its yellow, which is faint on
# white. Dash and point shape differ too, so that a print in grey can be read.
set encoding utf8
set decimalsign '.'
set minussign

if (fmt eq 'svg') {
    set terminal svg size canvas_w, canvas_h noenhanced background '#ffffff' \
        font 'DejaVu Sans,Helvetica,Arial,sans-serif,12'
} else {
    set terminal pngcairo size canvas_w, canvas_h noenhanced background '#ffffff' \
        font 'DejaVu Sans,10'
}
set output out

# The svg terminal draws symbols larger than pngcairo does.
k = fmt eq 'svg' ? 0.7 : 1.0
set linetype 1 lw 2 lc rgb '#0072B2' dt 1 pt 7 ps 0.9 * k
set linetype 2 lw 2 lc rgb '#D55E00' dt (10, 5) pt 5 ps 0.9 * k
set linetype 3 lw 2 lc rgb '#009E73' dt (12, 4, 2, 4) pt 9 ps 1.0 * k
set linetype 4 lw 2 lc rgb '#CC79A7' dt (4, 3) pt 13 ps 1.1 * k
set linetype 5 lw 2 lc rgb '#000000' dt 1 pt 6 ps 1.0 * k
set linetype 6 lw 2 lc rgb '#E69F00' dt (10, 5) pt 11 ps 1.0 * k
set linetype 7 lw 2 lc rgb '#56B4E9' dt (12, 4, 2, 4, 2, 4) pt 4 ps 0.9 * k
set linetype 8 lw 2 lc rgb '#666666' dt (4, 3) pt 8 ps 1.0 * k
set linetype cycle 8
# The svg terminal clears a disc of this size on error bars; 0 makes files that some viewers refuse.
set pointintervalbox 0.1

set lmargin at screen plot_left
set rmargin at screen plot_right
set bmargin at screen plot_bottom
set tmargin at screen plot_top
set border 3 lc rgb '#444444' lw 1
set tics nomirror out textcolor rgb '#222222'
set grid xtics ytics lt -1 lc rgb '#DDDDDD' lw 0.7 dt 1
set key at screen plot_left, screen 0.012 left bottom Left reverse vertical \
    maxrows legend_lines samplen 3.5 spacing 1.15 width 1
# Texts around the plot stand at fixed places: the terminals differ in the space that tics need.
at(n, text, x, y, more) = \
    sprintf("set label %d '%s' at screen %.9f, screen %.9f %s", n, text, x, y, more)
chart_title(text) = at(1, text, plot_left, 1 - 18.0 / canvas_h, \
    sprintf("font ',%d'", fmt eq 'svg' ? 16 : 13))
x_title(text) = at(3, text, (plot_left + plot_right) / 2, plot_bottom - 47.0 / canvas_h, 'center')
y_title(text) = at(4, text, 14.0 / canvas_w, (plot_bottom + plot_top) / 2, 'center rotate')
set label 2 subtitle at screen plot_left, screen 1 - 40.0 / canvas_h textcolor rgb '#555555'

set format y '%g'
if (x_log) { set logscale x }
if (y_log) { set logscale y }
set xrange [x_lo:x_hi]
set yrange [y_lo:y_hi]
if (strlen(x_tics)) { eval 'set xtics ('.x_tics.')' }
if (strlen(y_tics)) { eval 'set ytics ('.y_tics.')' }
