// SPDX-License-Identifier: Apache-2.0
// The script that other people's pages load from this server: `<script src="https://…/external_api.js">`.
import { JitsiMeetExternalAPI } from './api.ts';

Object.assign(globalThis, { JitsiMeetExternalAPI });
