/**
 * A line of its own to a kernel: a subshell, which answers while a cell runs, and a connection that speaks only to it.
 *
 * A subshell outlives the page that made it. So its id is kept for this page (sessionStorage: it survives a reload, and
 * the page takes it back), and noted for all pages of this browser (localStorage, with the time it was last used): one
 * that no page has used for long is deleted. Subshells that we did not note are not ours.
 */

import { Kernel, KernelMessage } from '@jupyterlab/services';

const OWN = 'mlsys-studio:subshell:';
const NOTED = 'mlsys-studio:subshells';
const STALE_MS = 10 * 60_000;
const PATIENCE_MS = 5_000;
const RESEND_MS = 10_000;

/** Why there is no line. */
export class NoLink extends Error {
  constructor(readonly reason: 'no-subshells' | 'busy') {
    super(reason);
  }
}

/** What an expression came to. */
export type Answer = { ok: true; data: Record<string, unknown> } | { ok: false; name: string; text: string };

export class Link {
  static async open(kernel: Kernel.IKernelConnection): Promise<Link> {
    const features = await within(kernel.info, 1_000, null).then(
      info => (info === null ? null : (info as { supported_features?: string[] }).supported_features ?? []),
      () => null
    );
    if (features !== null && !features.includes('kernel subshells')) {
      throw new NoLink('no-subshells');
    }
    // A kernel whose main shell is busy has not said what it can: the control channel answers all the same.
    const living = await subshells(kernel);
    if (living === null) {
      throw new NoLink(features === null ? 'busy' : 'no-subshells');
    }
    const kept = sessionStorage.getItem(OWN + kernel.id);
    const id = kept !== null && living.includes(kept) ? kept : await create(kernel);
    sessionStorage.setItem(OWN + kernel.id, id);
    for (const stale of takeStale(kernel.id, id, living)) {
      void request(kernel, 'delete_subshell_request', { subshell_id: stale });
    }
    const options = { handleComms: false, subshellId: id }; // the type omits the second, the constructor reads it
    return new Link(kernel, kernel.clone(options), id);
  }

  private constructor(
    readonly kernel: Kernel.IKernelConnection,
    private readonly _side: Kernel.IKernelConnection,
    private readonly _id: string
  ) {}

  /**
   * The value of a Python expression; null where the line went dead. Only one may be on its way.
   *
   * A kernel can lose a question: ipykernel 7 drops every message that comes while a cell runs under `%%capture`, since
   * IPython's capturing publisher lacks `set_parent`. So one without an answer is asked again, after ever longer waits:
   * a kernel that is only held up by a long C call will answer them all.
   */
  async ask(code: string): Promise<Answer | null> {
    note(this.kernel.id, this._id);
    let reply: KernelMessage.IExecuteReplyMsg | null = null;
    for (let patience = RESEND_MS; reply === null; patience *= 2) {
      const future = this._send(code);
      try {
        reply = await within(future.done, patience, null);
      } catch {
        return null; // the kernel restarted or died meanwhile
      }
      if (reply === null) {
        future.dispose();
        if ((await subshells(this.kernel))?.includes(this._id) === false) {
          return null; // another page took it for forgotten; not every ipykernel answers that it is unknown
        }
      }
    }
    if (reply.content.status !== 'ok') {
      return null; // aborted, or the subshell is gone
    }
    const it = reply.content.user_expressions?.it as
      | { status: 'ok'; data: Record<string, unknown> }
      | { status: 'error'; ename: string; evalue: string }
      | undefined;
    if (it === undefined) {
      return null;
    }
    return it.status === 'ok' ? { ok: true, data: it.data } : { ok: false, name: it.ename, text: it.evalue };
  }

  private _send(code: string): Kernel.IShellFuture<KernelMessage.IExecuteRequestMsg, KernelMessage.IExecuteReplyMsg> {
    return this._side.requestExecute({
      code: '',
      silent: true,
      store_history: false,
      allow_stdin: true, // the kernel has one answer for all its shells, and a cell that runs may ask for input
      stop_on_error: false,
      user_expressions: { it: code }
    });
  }

  /** Of a kernel that lives, the subshell goes too; that of one which restarted went with it. */
  close(alive: boolean): void {
    sessionStorage.removeItem(OWN + this.kernel.id);
    forget(this.kernel.id, this._id);
    this._side.subshellId = null; // else its disposal waits for an answer, which a dead kernel never gives
    this._side.dispose();
    if (alive) {
      void request(this.kernel, 'delete_subshell_request', { subshell_id: this._id });
    }
  }
}

/** Those that live; null where the kernel does not say. */
async function subshells(kernel: Kernel.IKernelConnection): Promise<string[] | null> {
  const listed = await request<KernelMessage.IListSubshellRequestMsg>(kernel, 'list_subshell_request', {});
  return (listed?.content as { subshell_id?: string[] } | undefined)?.subshell_id ?? null;
}

async function create(kernel: Kernel.IKernelConnection): Promise<string> {
  const made = await request<KernelMessage.ICreateSubshellRequestMsg>(kernel, 'create_subshell_request', {});
  const id = (made?.content as { subshell_id?: string } | undefined)?.subshell_id;
  if (id === undefined) {
    throw new NoLink('busy');
  }
  return id;
}

/** By hand: `requestCreateSubshell` refuses until the main shell has answered. Null where no reply came. */
async function request<T extends KernelMessage.IControlMessage>(
  kernel: Kernel.IKernelConnection,
  msgType: T['header']['msg_type'],
  content: T['content']
): Promise<KernelMessage.IControlMessage | null> {
  const message = KernelMessage.createMessage({
    msgType,
    channel: 'control',
    username: kernel.username,
    session: kernel.clientId,
    content
  } as never) as unknown as KernelMessage.IControlMessage; // its overloads are one for each kind of message
  const future = kernel.sendControlMessage(message as never, true, true);
  try {
    const reply = (await within(future.done, PATIENCE_MS, null)) as KernelMessage.IControlMessage | null;
    return reply;
  } catch {
    return null;
  } finally {
    if (!future.isDisposed) {
      future.dispose();
    }
  }
}

// -- what this browser noted -------------------------------------------------------------------------------------------

type Notes = Record<string, Record<string, number>>; // kernel → subshell → last used, ms

function notes(): Notes {
  try {
    const read: unknown = JSON.parse(localStorage.getItem(NOTED) ?? '{}');
    return typeof read === 'object' && read !== null ? (read as Notes) : {};
  } catch {
    return {};
  }
}

function write(all: Notes): void {
  try {
    localStorage.setItem(NOTED, JSON.stringify(all));
  } catch {
    // full or forbidden: then a closed page leaves its subshell to the kernel's end
  }
}

const noted = new Map<string, number>();

function note(kernel: string, id: string): void {
  const now = Date.now();
  if (now - (noted.get(id) ?? 0) > 30_000) {
    noted.set(id, now);
    const all = notes();
    (all[kernel] ??= {})[id] = now;
    write(all);
  }
}

function forget(kernel: string, id: string): void {
  noted.delete(id);
  const all = notes();
  delete all[kernel]?.[id];
  write(all);
}

/** Ours, alive, and unused for long; the notes of kernels and subshells that are gone go with them. */
function takeStale(kernel: string, own: string, living: string[]): string[] {
  const all = notes();
  const now = Date.now();
  const here = all[kernel] ?? {};
  const stale = Object.keys(here).filter(id => id !== own && living.includes(id) && now - here[id] > STALE_MS);
  const kept = Object.entries(here).filter(([id]) => living.includes(id) && !stale.includes(id));
  all[kernel] = { ...Object.fromEntries(kept), [own]: now };
  for (const [other, ids] of Object.entries(all)) {
    if (Object.values(ids).every(used => now - used > 7 * 86_400_000)) {
      delete all[other];
    }
  }
  write(all);
  return stale;
}

function within<T, U>(promise: Promise<T>, milliseconds: number, otherwise: U): Promise<T | U> {
  return Promise.race([promise, new Promise<U>(resolve => window.setTimeout(() => resolve(otherwise), milliseconds))]);
}
