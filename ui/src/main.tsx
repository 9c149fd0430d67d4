// Starts the only page, Explore.
import { createRoot } from 'react-dom/client';
import './tokens.css';
import './base.css';
import { Explore } from './explore/explore';
import { startTheme } from './theme';

if (location.pathname !== '/explore') history.replaceState(null, '', `/explore${location.search}`);
startTheme();
createRoot(document.getElementById('root')!).render(<Explore />);
