/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A client whose requests are judged where they arrive is told to keep no HPACK table (SETTINGS_HEADER_TABLE_SIZE 0). For
 * a denied call's path is altered on its way, and from a table another call would get the altered one: there it cannot be
 * written out, as what has arrived keeps its length (mesh/draining.h is for what comes before the client knows).
 */
#pragma once

#include "mesh/reading.h"

#define SETTING_SIZE 6

/* Longest SETTINGS frame that gets one more. */
#define SETTINGS_LIMIT 128

/* Where the setting goes in: before the last byte of the header, as the frame may be all of the message. */
#define SETTING_GAP (FRAME_HEADER_SIZE - 1)

/* Adds the setting to the SETTINGS frame that the server's first message begins with. How many bytes it has grown by; -1:
 * it has grown, and is not whole. */
static __noinline int forbid_table(struct sk_msg_md *msg)
{
	__u32 length, i;
	__u8 *data;

	if (!msg || msg->size < FRAME_HEADER_SIZE || bpf_msg_pull_data(msg, 0, FRAME_HEADER_SIZE, 0))
		return 0;
	data = msg->data;
	if ((void *)(data + FRAME_HEADER_SIZE) > msg->data_end)
		return 0;
	length = data[2];
	if (data[0] || data[1] || data[3] != FRAME_SETTINGS || data[4] || length > SETTINGS_LIMIT ||
	    FRAME_HEADER_SIZE + length > msg->size)
		return 0;
	if (bpf_msg_push_data(msg, SETTING_GAP, SETTING_SIZE, 0)) {
		count_error(HELPER_MSG_PUSH_DATA);
		return 0;
	}
	if (bpf_msg_pull_data(msg, 0, FRAME_HEADER_SIZE + length + SETTING_SIZE, 0)) {
		count_error(HELPER_MSG_PULL_DATA);
		return -1;
	}
	loop_below (i, SETTINGS_LIMIT + 1) {
		if (i > length)
			break;
		data = msg->data;
		data += SETTING_GAP + masked(i, 2 * SETTINGS_LIMIT);
		if ((void *)(data + SETTING_SIZE + 1) > msg->data_end)
			return -1;
		*data = data[SETTING_SIZE];
	}
	data = msg->data;
	if ((void *)(data + FRAME_HEADER_SIZE) > msg->data_end)
		return -1;
	data[2] = length + SETTING_SIZE;
	data += FRAME_HEADER_SIZE + masked(length, 2 * SETTINGS_LIMIT);
	if ((void *)(data + SETTING_SIZE) > msg->data_end)
		return -1;
	data[0] = 0;
	data[1] = SETTINGS_HEADER_TABLE_SIZE;
	data[2] = 0;
	data[3] = 0;
	data[4] = 0;
	data[5] = 0;
	return SETTING_SIZE;
}
