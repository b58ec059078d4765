"""Marker watershed: labels spread from the highest ground down, through a queue of one bin a level."""

from implantforge.kernels.jit import kernel


@kernel
def flood(level, steps, item, after, head, tail, values):  # type: ignore[no-untyped-def]
    """values flat int16: labels spread in place from where they are positive to where they are 0, highest level first,
    within a level in the order of arrival; negative stays out, as it must all along the rim of the box.

    level flat: bins, 0 the lowest; steps (6,): ways to the neighbours in flat indices; item and after: room for every
    voxel that is not negative; head and tail: one each a bin, -1.
    """
    count, top = 0, -1
    for v in range(len(values)):
        if values[v] > 0:
            bare = False
            for s in steps:
                bare |= values[v + s] == 0
            if bare:
                b = level[v]
                item[count], after[count] = v, -1
                if head[b] < 0:
                    head[b] = count
                else:
                    after[tail[b]] = count
                tail[b] = count
                count += 1
                top = max(top, b)
    while top >= 0:
        at = head[top]
        if at < 0:
            top -= 1
            continue
        head[top] = after[at]
        v = item[at]
        for s in steps:
            if values[v + s] == 0:
                values[v + s] = values[v]
                b = level[v + s]
                item[count], after[count] = v + s, -1
                if head[b] < 0:
                    head[b] = count
                else:
                    after[tail[b]] = count
                tail[b] = count
                count += 1
                top = max(top, b)
