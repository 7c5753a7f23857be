/** A card in the launcher: the quickstart, copied into the folder one is in and opened. */

import { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { icon } from './icon';

const NAME = 'mlsys_quickstart.ipynb';
const FIND = "__import__('json').dumps(__import__('importlib.resources').resources.files('mlsys_studio.notebooks').joinpath('00_quickstart.ipynb').read_text())";

/**
 * The notebook lies in the package, and the package where the kernel is: so a kernel is started, asked, and ended.
 * Notebook 7 has no launcher, but a command palette.
 */
export function addCard(app: JupyterFrontEnd, launcher: ILauncher | null): void {
  const command = 'mlsys:quickstart';
  app.commands.addCommand(command, {
    label: args => (args['isLauncher'] ? 'Quickstart' : 'Open the mlsys-studio Quickstart'),
    caption: 'Where did the training step go? A notebook to run from top to bottom',
    icon,
    execute: async args => {
      const folder = typeof args['cwd'] === 'string' ? args['cwd'] : '';
      const path = folder === '' ? NAME : `${folder}/${NAME}`;
      const contents = app.serviceManager.contents;
      const there = await contents.get(path, { content: false }).then(() => true, () => false);
      if (!there) {
        const text = await ask(app);
        if (text === null) {
          Notification.error('The quickstart is in mlsys-studio, which the default kernel lacks; run %pip install mlsys-studio in a notebook.', { autoClose: 8000 });
          return;
        }
        await contents.save(path, { type: 'notebook', format: 'json', content: JSON.parse(text) });
      }
      await app.commands.execute('docmanager:open', { path });
    }
  });
  launcher?.add({ command, category: 'mlsys-studio', rank: 0 });
}

async function ask(app: JupyterFrontEnd): Promise<string | null> {
  const kernel = await app.serviceManager.kernels.startNew();
  try {
    const reply = await kernel.requestExecute({ code: '', silent: true, store_history: false, user_expressions: { it: FIND } }).done;
    const it = reply.content.status === 'ok' ? (reply.content.user_expressions?.it as { status: string; data: Record<string, string> }) : null;
    // The repr of a JSON text: quotes around, and its own backslashes doubled.
    return it?.status === 'ok' ? JSON.parse(unquoted(it.data['text/plain'])) : null;
  } finally {
    await app.serviceManager.kernels.shutdown(kernel.id);
    kernel.dispose();
  }
}

function unquoted(repr: string): string {
  return repr.slice(1, -1).replace(/\\(.)/g, '$1');
}
