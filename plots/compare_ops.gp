# SPDX-License-Identifier: MIT
# compare_ops - which operation is wrong, in which layer? Drawn in pixels, as heat.py lays it out.
# Blocks: cells (x y x_low x_high y_low y_high heat), cells that are not finite (the same), then
# texts (x y text): operations, layers, heads of the maps, values beyond the limit.
# Blue up to the limit, orange to red beyond: two hues that every eye tells apart.
eval chart_title('Error of every operation on equal inputs')
set lmargin at screen 0
set rmargin at screen 1
set bmargin at screen 0
set tmargin at screen 1
unset border
unset tics
unset grid
unset key
set palette defined (-5 '#F4F8FC', -3 '#C6DDF0', -1 '#74ADD6', -0.001 '#1F62A8', \
                     0 '#FDC070', 1 '#E4570A', 2 '#7A0403')
set cbrange [-5:2]
set colorbox horizontal user origin screen plot_left + 0.03, screen 44.0 / canvas_h \
    size screen plot_right - plot_left - 0.06, screen 11.0 / canvas_h noborder
set cbtics scale 0 offset 0, 0.4 textcolor rgb '#222222' \
    ('≤ 0.00001' -5, '0.0001' -4, '0.001' -3, '0.01' -2, '0.1' -1, 'limit' 0, '10 times' 1, '≥ 100' 2)
eval at(3, 'error as a share of the limit of the kernel; black: not a number; '. \
    '–: outside of the layers', \
    (plot_left + plot_right) / 2, 14.0 / canvas_h, 'center')
small = sprintf("%s,%d", 'DejaVu Sans', fmt eq 'svg' ? 9 : 7)
plot data index 0 using 1:2:3:4:5:6:7 with boxxyerror lc palette fs solid 1 noborder, \
     data index 1 using 1:2:3:4:5:6 with boxxyerror lc rgb '#000000' fs solid 1 noborder, \
     data index 2 using 1:2:3 with labels right textcolor rgb '#222222', \
     data index 3 using 1:2:3 with labels center textcolor rgb '#555555', \
     data index 4 using 1:2:3 with labels left textcolor rgb '#000000', \
     data index 5 using 1:2:3 with labels center font small textcolor rgb '#FFFFFF'
