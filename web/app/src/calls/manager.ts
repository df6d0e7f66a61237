// SPDX-License-Identifier: Apache-2.0
import { CallEvent, createNewMatrixCall, type MatrixCall, type MatrixClient } from 'matrix-js-sdk';
import { CallDirection, CallErrorCode, CallParty, CallState, type CallError } from 'matrix-js-sdk/lib/webrtc/call.js';
import { CallEventHandlerEvent } from 'matrix-js-sdk/lib/webrtc/callEventHandler.js';
import { CallFeedEvent, type CallFeed } from 'matrix-js-sdk/lib/webrtc/callFeed.js';
import { displayName, localPart } from '../matrix/names.ts';
import { openRoom, patchCall, toast, useApp } from '../store.ts';
import { callsImpossible, explainMediaError, loadDevices, preflight, saveDevices, type DeviceChoice } from './devices.ts';
import { endedWords, foundNoWay } from './endings.ts';
import { Farewell } from './farewell.ts';
import { compare, judge, readSample, WINDOW, type Sample } from './quality.ts';
import { Ringer } from './ring.ts';
import type { CallPhase, CallView } from './view.ts';

/** How long the screen keeps saying why a call ended. */
const LINGER_MS = 2200;
const STATS_EVERY_MS = 1000;

/**
 * Owns the one call of this browser and the one that rings beside it, drives the SDK's MatrixCall and writes what
 * the call screen shows into the store.
 */
export class CallManager {
  /** The call on the screen. */
  current: MatrixCall | null = null;
  private ringing: MatrixCall | null = null;
  private readonly client: MatrixClient;
  private readonly ringer = new Ringer();
  private readonly unhook = new Map<MatrixCall, () => void>();
  private stats: ReturnType<typeof setInterval> | null = null;
  private farewell: Farewell | undefined;
  private samples: Sample[] = [];
  private linger: ReturnType<typeof setTimeout> | null = null;
  /** True from the moment a call is asked for until its object exists: guards against a double click. */
  private starting = false;

  constructor(client: MatrixClient) {
    this.client = client;
    client.on(CallEventHandlerEvent.Incoming, this.onIncoming);
    this.applyDevices(loadDevices());
    window.addEventListener('pagehide', this.onPageHide);
  }

  stop(): void {
    this.client.off(CallEventHandlerEvent.Incoming, this.onIncoming);
    window.removeEventListener('pagehide', this.onPageHide);
    this.hangUp();
    this.ringing = null;
    this.ringer.stop();
    this.stopStats();
    if (this.linger !== null) clearTimeout(this.linger);
  }

  /** Rings the other person of a one-to-one room. */
  async place(roomId: string, peerId: string, video: boolean): Promise<void> {
    if (this.starting) return;
    if (this.current && !this.current.callHasEnded()) {
      toast('You are already in a call.');
      return;
    }
    const impossible = callsImpossible();
    if (impossible) {
      toast(impossible, 'problem');
      return;
    }
    this.starting = true;
    try {
      const devices = await preflight(video);
      try {
        await this.client.checkTurnServers();
        // `invitee` also lets the SDK see glare: it compares the caller of an incoming invite with it.
        const call = createNewMatrixCall(this.client, roomId, { invitee: peerId });
        if (!call) throw new Error('no WebRTC');
        this.forgetFailedDevices();
        this.take(call, peerId, devices.video, devices.notice);
        await (devices.video ? call.placeVideoCall() : call.placeVoiceCall());
      } finally {
        devices.release();
      }
    } catch (error) {
      toast(explainMediaError(error, video ? 'video' : 'audio'), 'problem');
    } finally {
      this.starting = false;
    }
  }

  /** Accepts the ringing call; a call that is already on hangs up first. */
  async accept(video: boolean): Promise<void> {
    const call = this.ringing;
    if (!call || this.starting || callsImpossible()) return;
    this.starting = true;
    this.ringer.stop();
    try {
      const devices = await preflight(video);
      try {
        if (call.callHasEnded()) return;
        this.hangUp();
        this.ringing = null;
        const peerId = useApp.getState().incoming?.peerId ?? call.getOpponentMember()?.userId ?? '';
        useApp.setState({ incoming: null });
        this.forgetFailedDevices();
        openRoom(call.roomId);
        this.take(call, peerId, call.hasRemoteUserMediaVideoTrack, devices.notice);
        await call.answer(true, devices.video);
      } finally {
        devices.release();
      }
    } catch (error) {
      const problem = explainMediaError(error, video ? 'video' : 'audio');
      const { incoming } = useApp.getState();
      if (incoming) useApp.setState({ incoming: { ...incoming, problem } });
      else toast(problem, 'problem');
      if (this.ringing) this.ringer.start('incoming');
    } finally {
      this.starting = false;
    }
  }

  decline(): void {
    const call = this.ringing;
    this.endRinging();
    if (call?.state === CallState.Ringing) call.reject();
  }

  hangUp(): void {
    if (this.current && !this.current.callHasEnded()) this.current.hangup(CallErrorCode.UserHangup, false);
  }

  async toggleMic(): Promise<void> {
    const call = this.current;
    if (!call) return;
    await call.setMicrophoneMuted(!call.isMicrophoneMuted());
    this.refresh(call);
  }

  async toggleCamera(): Promise<void> {
    const call = this.current;
    if (!call) return;
    const turnOn = call.isLocalVideoMuted() || !call.hasLocalUserMediaVideoTrack;
    if (turnOn) {
      try {
        const probe = await navigator.mediaDevices.getUserMedia({ video: true });
        probe.getTracks().forEach((track) => track.stop());
      } catch (error) {
        toast(explainMediaError(error, 'video'), 'problem');
        return;
      }
      this.forgetFailedDevices();
    }
    await call.setLocalVideoMuted(!turnOn);
    // The SDK announces a camera that is added to a voice call only with the next change.
    if (turnOn) await call.sendMetadataUpdate().catch(() => {});
    this.sharpen(call);
    this.refresh(call);
  }

  async toggleShare(): Promise<void> {
    const call = this.current;
    if (!call) return;
    if (call.isScreensharing()) {
      await call.setScreensharingEnabled(false);
    } else {
      const shared = await call.setScreensharingEnabled(true, { audio: false });
      // The browser's own "Stop sharing" button ends the track behind our back.
      const track = shared ? call.localScreensharingStream?.getVideoTracks()[0] : undefined;
      track?.addEventListener('ended', () => {
        if (call.isScreensharing()) void call.setScreensharingEnabled(false).then(() => this.refresh(call));
      });
    }
    this.refresh(call);
  }

  /** Uses other devices from now on, in the running call too. */
  async chooseDevices(choice: DeviceChoice): Promise<void> {
    const before = loadDevices();
    saveDevices(choice);
    useApp.setState({ devices: choice });
    const handler = this.client.getMediaHandler();
    const call = this.current;
    if (!call || call.callHasEnded()) {
      this.applyDevices(choice);
      return;
    }
    try {
      if (choice.mic !== before.mic) await handler.setAudioInput(choice.mic);
      if (choice.camera !== before.camera) await handler.setVideoInput(choice.camera);
    } catch (error) {
      toast(explainMediaError(error, choice.camera !== before.camera ? 'video' : 'audio'), 'problem');
    }
    this.sharpen(call);
    this.refresh(call);
  }

  minimise(minimised: boolean): void {
    if (this.current) patchCall(this.current.callId, { minimised });
  }

  /** Takes the ended call off the screen at once. */
  dismiss(): void {
    if (this.current?.callHasEnded()) {
      this.current = null;
      useApp.setState({ call: null });
    }
  }

  private applyDevices(choice: DeviceChoice): void {
    this.client.getMediaHandler().restoreMediaSettings(choice.mic, choice.camera);
  }

  /** The SDK chains requests for devices, so one refusal would fail every later request: start the chain anew. */
  private forgetFailedDevices(): void {
    (this.client.getMediaHandler() as unknown as { getMediaStreamPromise?: Promise<MediaStream> }).getMediaStreamPromise = undefined;
  }

  private onPageHide = (): void => {
    if (this.farewell && this.current && !this.current.callHasEnded()) this.farewell.send(this.client.getAccessToken());
    this.hangUp();
  };

  private prepareFarewell(call: MatrixCall): void {
    this.farewell = undefined;
    Farewell.prepare(this.client, call).then(
      (farewell) => {
        if (this.current === call) this.farewell = farewell;
      },
      () => {},
    );
  }

  private onIncoming = (call: MatrixCall): void => {
    if (call.callHasEnded()) return;
    const busy = this.ringing !== null;
    call.on(CallEvent.Error, () => {});
    if (busy) {
      // Two strangers at the door: the first one keeps it, the second hears that we cannot answer.
      if (call.state === CallState.Ringing) call.reject();
      return;
    }
    const peer = call.getOpponentMember();
    const peerId = peer?.userId ?? '';
    const room = this.client.getRoom(call.roomId);
    this.ringing = call;
    const left = () => {
      if (this.ringing !== call) return;
      if (call.hangupParty === CallParty.Remote && call.hangupReason === CallErrorCode.AnsweredElsewhere) toast('Answered on another device.');
      this.endRinging();
    };
    const onState = (state: CallState) => state === CallState.Ended && left();
    call.on(CallEvent.Hangup, left);
    call.on(CallEvent.State, onState);
    useApp.setState({
      incoming: {
        callId: call.callId,
        roomId: call.roomId,
        peerId,
        peerName: peerId ? displayName(room, peerId) : 'Somebody',
        video: call.hasRemoteUserMediaVideoTrack,
        problem: callsImpossible() ?? '',
      },
    });
    this.ringer.start('incoming');
  };

  private endRinging(): void {
    this.ringing = null;
    this.ringer.stop();
    useApp.setState({ incoming: null });
  }

  /** Puts a call on the screen and follows it to its end. */
  private take(call: MatrixCall, peerId: string, video: boolean, notice: string): void {
    if (this.linger !== null) clearTimeout(this.linger);
    const room = this.client.getRoom(call.roomId);
    this.current = call;
    this.samples = [];
    const view: CallView = {
      callId: call.callId,
      roomId: call.roomId,
      peerId,
      peerName: peerId ? displayName(room, peerId) : localPart(peerId),
      phase: 'preparing',
      video,
      micMuted: false,
      cameraOff: !video,
      sharing: false,
      remoteMicMuted: false,
      remoteVideo: null,
      remoteCamera: false,
      remoteScreen: null,
      local: null,
      connectedAt: null,
      endedWords: '',
      quality: 'unknown',
      measurement: null,
      notice,
      minimised: false,
    };
    useApp.setState({ call: view });
    this.hook(call);
    this.prepareFarewell(call);
    this.startStats();
    this.refresh(call);
  }

  private hook(call: MatrixCall): void {
    const feeds = new Set<CallFeed>();
    const refresh = () => this.refresh(call);
    const onFeeds = () => {
      for (const feed of call.getFeeds()) {
        if (feeds.has(feed)) continue;
        feeds.add(feed);
        feed.on(CallFeedEvent.MuteStateChanged, refresh);
        feed.on(CallFeedEvent.NewStream, refresh);
      }
      this.sharpen(call);
      refresh();
    };
    const onError = (error: CallError) => {
      if (error.code === CallErrorCode.NoUserMedia) toast('The microphone or camera could not be used.', 'problem');
    };
    const onReplaced = (next: MatrixCall) => {
      // Glare: both rang at once and the other call stays. The SDK answers it with our stream.
      if (this.current === call) {
        const view = useApp.getState().call;
        this.unhookCall(call);
        this.take(next, view?.peerId ?? '', view?.video ?? false, view?.notice ?? '');
      }
    };
    call.on(CallEvent.State, refresh);
    call.on(CallEvent.FeedsChanged, onFeeds);
    call.on(CallEvent.Error, onError);
    call.on(CallEvent.Replaced, onReplaced);
    call.on(CallEvent.Hangup, refresh);
    call.on(CallEvent.PeerConnectionCreated, refresh);
    this.unhook.set(call, () => {
      call.off(CallEvent.State, refresh);
      call.off(CallEvent.FeedsChanged, onFeeds);
      call.off(CallEvent.Replaced, onReplaced);
      call.off(CallEvent.Hangup, refresh);
      call.off(CallEvent.PeerConnectionCreated, refresh);
      for (const feed of feeds) {
        feed.off(CallFeedEvent.MuteStateChanged, refresh);
        feed.off(CallFeedEvent.NewStream, refresh);
      }
    });
    onFeeds();
  }

  private unhookCall(call: MatrixCall): void {
    this.unhook.get(call)?.();
    this.unhook.delete(call);
  }

  /** Asks the camera for 720p. The SDK asks for 640x360; the track can be told more once it runs. */
  private sharpen(call: MatrixCall): void {
    if (!loadDevices().hd) return;
    const track = call.localUsermediaStream?.getVideoTracks()[0];
    if (!track || track.readyState !== 'live' || (track.getSettings().height ?? 0) >= 720) return;
    track.applyConstraints({ width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } }).catch(() => {});
  }

  private phase(call: MatrixCall, before: CallView): CallPhase {
    const ice = call.peerConn?.iceConnectionState;
    switch (call.state) {
      case CallState.Ended:
        return 'ended';
      case CallState.InviteSent:
        return 'ringing';
      case CallState.Connected:
        return ice === 'disconnected' || ice === 'failed' ? 'reconnecting' : 'connected';
      case CallState.Connecting:
        return before.connectedAt ? 'reconnecting' : 'connecting';
      case CallState.CreateAnswer:
      case CallState.Ringing:
        return 'connecting';
      default:
        return call.direction === CallDirection.Inbound ? 'connecting' : 'preparing';
    }
  }

  /** Reads the call's state into the store. */
  private refresh(call: MatrixCall): void {
    const before = useApp.getState().call;
    if (!before || before.callId !== call.callId || this.current !== call) return;
    const phase = this.phase(call, before);
    if (phase === 'ringing') this.ringer.start('outgoing');
    else this.ringer.stop();
    if (phase === 'ended') {
      if (before.phase !== 'ended') this.finish(call, before);
      return;
    }
    const remote = call.remoteUsermediaFeed;
    const remoteTrack = remote?.stream.getVideoTracks()[0];
    patchCall(call.callId, {
      phase,
      micMuted: call.isMicrophoneMuted(),
      cameraOff: !call.hasLocalUserMediaVideoTrack || call.isLocalVideoMuted(),
      sharing: call.isScreensharing(),
      local: call.localUsermediaStream ?? null,
      remoteVideo: remote?.stream ?? null,
      remoteCamera: Boolean(remoteTrack && !remote?.isVideoMuted()),
      remoteMicMuted: Boolean(remote?.isAudioMuted()),
      remoteScreen: call.remoteScreensharingStream ?? null,
      connectedAt: before.connectedAt ?? (phase === 'connected' ? Date.now() : null),
    });
  }

  private finish(call: MatrixCall, before: CallView): void {
    this.stopStats();
    this.unhookCall(call);
    if (foundNoWay(call.hangupReason, before.phase)) toast('The two of you found no way to each other. “Do calls work here?”, in the menu under your name, says why.', 'problem');
    patchCall(call.callId, {
      phase: 'ended',
      endedWords: endedWords(call.hangupReason, call.hangupParty === CallParty.Local, before.phase, before.peerName),
      remoteVideo: null,
      remoteScreen: null,
      local: null,
      sharing: false,
    });
    this.linger = setTimeout(() => {
      this.linger = null;
      if (this.current === call) this.dismiss();
    }, LINGER_MS);
  }

  private startStats(): void {
    this.stopStats();
    this.stats = setInterval(() => void this.measure(), STATS_EVERY_MS);
  }

  private stopStats(): void {
    if (this.stats !== null) clearInterval(this.stats);
    this.stats = null;
  }

  private async measure(): Promise<void> {
    const call = this.current;
    if (!call?.peerConn || call.callHasEnded()) return;
    const report = await call.peerConn.getStats();
    if (this.current !== call || call.callHasEnded()) return;
    const sample = readSample(report as unknown as Parameters<typeof readSample>[0]);
    const measurement = compare(this.samples[0] ?? null, sample);
    this.samples = [...this.samples, sample].slice(-WINDOW);
    patchCall(call.callId, { measurement, quality: useApp.getState().call?.phase === 'reconnecting' ? 'poor' : judge(measurement) });
    // ICE can go from disconnected to failed without a new call state; the reconnecting notice follows it here.
    this.refresh(call);
  }
}
